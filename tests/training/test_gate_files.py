"""The gate's stage on real files: whatever is wrong with an outcomes file stops it with an error that names it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data import record
from tests.serving import tiny
from tests.training.builders import write_workspace
from training import champion, evaluate, gate
from training.attempts import ATTEMPTS
from training.outcomes import column
from training.verdict import Rule

OUTCOMES = Path("store/evaluations/clip/outcomes.parquet")
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base and clip, evaluated."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_workspace(root)
        for name in ("base", "clip"):
            assert evaluate.main([name]) == 0
    return root


@pytest.fixture
def here(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to ruin, as the current folder."""
    shutil.copytree(evaluated, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def first(table: pa.Table, benchmark: str = "compositional", metric: str = "accuracy") -> int:
    """The row of the first item of a metric."""
    rows = zip(table["benchmark"].to_pylist(), table["metric"].to_pylist(), strict=True)
    return next(i for i, row in enumerate(rows) if row == (benchmark, metric))


def put(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    index = table.column_names.index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def nan(table: pa.Table) -> pa.Table:
    return put(table, "outcome", first(table), float("nan"))


def two(table: pa.Table) -> pa.Table:
    return put(table, "outcome", first(table), 2.0)


def lost_item(table: pa.Table) -> pa.Table:
    return table.filter(pa.array(np.arange(table.num_rows) != first(table)))


def renamed_item(table: pa.Table) -> pa.Table:
    item = table["item_id"][first(table)]
    ids = pc.if_else(pc.equal(table["item_id"], item), "another", table["item_id"])
    return table.set_column(table.column_names.index("item_id"), "item_id", ids)


def item_twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(first(table), 1)])


def other_family(table: pa.Table) -> pa.Table:
    return put(table, "unit", first(table), 999)


def lost_metric(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["metric"], "i2t_R@10"))


def lost_control(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["metric"], "blind_accuracy"))


def all_right(table: pa.Table) -> pa.Table:
    index = table.column_names.index("outcome")
    return table.set_column(index, table.schema.field("outcome"), pa.array(np.ones(table.num_rows)))


def lost_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["unit"])


CHANGES = [
    (nan, r"compositional accuracy has outcomes that are not numbers .*: c000"),
    (two, r"compositional accuracy has outcomes outside 0 to 1: c000"),
    (lost_item, r"compositional accuracy lacks 1 of the suite's 24 items: c000"),
    (renamed_item, r"compositional accuracy lacks 1 of the suite's 24 items: c000"),
    (item_twice, r"compositional accuracy has 1 items more than once: c000"),
    (other_family, r"compositional accuracy puts 1 items into another family than the suite: c000"),
    (lost_metric, r"catalog_retrieval i2t_R@10 is missing"),
    (lost_control, r"compositional blind_accuracy is missing"),
    (all_right, r"is 1.000000 by the outcomes, but .* by the record beside them"),
    (lost_column, r"column `unit` is missing"),
]


def damage(change: Change, *models: str, sealed: bool) -> None:
    """Rewrite outcomes; `sealed` makes the record fit them again, as if the evaluation had written them so."""
    for model in models:
        path = Path("store/evaluations") / model / "outcomes.parquet"
        pq.write_table(change(pq.read_table(path)), path)
        if sealed:
            tiny.reseal(path.parent)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """What the gate says when it does not judge; nothing is left behind and no attempt is counted."""
    capsys.readouterr()
    assert gate.main(["clip"]) == 2
    assert not Path("store/verdicts/clip").exists()
    assert not ATTEMPTS.exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_tampered_outcomes_file_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], change: Change, words: str
) -> None:
    """Bytes that differ from the record, and then the same damage with a record that was made to fit."""
    damage(change, "clip", sealed=False)
    assert f"{OUTCOMES}: changed since" in refused(capsys)
    tiny.reseal(OUTCOMES.parent)
    said = refused(capsys)
    assert said.startswith(f"error: {OUTCOMES}: ")
    assert re.search(words, said)
    assert "dvc repro -f evaluate@clip" in said


@pytest.mark.parametrize("change", [nan, two, lost_item, renamed_item, item_twice, other_family])
def test_a_fault_that_both_models_share_is_noticed(
    here: Path, capsys: pytest.CaptureFixture[str], change: Change
) -> None:
    """The item lists agree with each other, but not with the suite."""
    damage(change, "clip", "base", sealed=True)
    assert f"{OUTCOMES}: compositional accuracy" in refused(capsys)


def test_a_fault_of_the_champion_is_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(lost_item, "base", sealed=True)
    assert "store/evaluations/base/outcomes.parquet: compositional accuracy lacks 1" in refused(capsys)


def test_a_file_that_is_not_parquet_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OUTCOMES.write_text("nothing")
    tiny.reseal(OUTCOMES.parent)
    assert f"{OUTCOMES}: not a parquet file" in refused(capsys)


def test_a_changed_item_list_stops_the_gate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An item taken out of the suite after the models were scored: the suites' record no longer holds."""
    suite = Path("store/suites/compositional.parquet")
    pq.write_table(pq.read_table(suite).slice(1), suite)
    tiny.reseal(suite.parent)
    assert "made with suites" in refused(capsys)


def test_a_tampered_cache_of_the_champion_is_scored_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promoted = champion.install("search", Path("store/models/clip"))
    champion.point("search", promoted.model_record)
    tiny.write_model(Path("store/models/clip"), seed=7)
    assert evaluate.main(["clip"]) == 0
    assert gate.main(["clip"]) == 0
    judged = json.loads(Path("store/verdicts/clip/verdict.json").read_text())
    (cached,) = Path("runs/cache/evaluations").glob("*.parquet")
    pq.write_table(all_right(pq.read_table(cached)), cached)
    capsys.readouterr()
    assert gate.main(["clip", "--force"]) == 0
    assert "scoring it now" in capsys.readouterr().err
    assert json.loads(Path("store/verdicts/clip/verdict.json").read_text()) == judged
    assert column(pq.read_table(cached), "outcome").mean() < 1


def test_attempts_are_counted_by_the_stage(here: Path) -> None:
    """Judged twice: one attempt. Trained again: the second, judged by wider intervals. A new champion: the first."""

    def judged(*flags: str) -> tuple[int, float]:
        assert gate.main(["clip", *flags]) == 0
        found = json.loads(Path("store/verdicts/clip/verdict.json").read_text())["attempt"]
        return found["number"], round(found["confidence"], 6)

    assert judged() == (1, 0.95)
    made = record.read(Path("store/verdicts/clip")).id
    assert judged("--force") == (1, 0.95)
    assert record.read(Path("store/verdicts/clip")).id == made
    tiny.write_model(Path("store/models/clip"), seed=7)
    assert evaluate.main(["clip"]) == 0
    assert judged() == (2, round(1 - 2 * 0.05 / 6, 6))
    page = Path("store/verdicts/clip/verdict.md").read_text()
    assert "This is attempt 2 of clip at this champion." in page
    assert record.read(Path("store/verdicts/clip")).summary["attempt"] == 2
    shutil.copytree("store/models/clip", "store/models/kept")
    tiny.write_model(Path("store/models/clip"), seed=8)
    promoted = champion.install("search", Path("store/models/kept"))
    champion.point("search", promoted.model_record)
    assert evaluate.main(["clip"]) == 0
    assert judged()[0] == 1
    assert len(ATTEMPTS.read_text().splitlines()) == 3


def test_the_champion_itself_is_no_attempt(here: Path) -> None:
    promoted = champion.install("search", Path("store/models/clip"))
    champion.point("search", promoted.model_record)
    assert gate.main(["clip"]) == 0
    assert not ATTEMPTS.exists()


def test_settings_of_an_attempt_are_in_the_record(here: Path) -> None:
    """So a stage that is up to date at attempt 2 is not at attempt 3."""
    assert gate.main(["clip"]) == 0
    found = record.read(Path("store/verdicts/clip")).parameters["gate"]
    assert found["attempt"] == 1
    assert set(found) == {field.name for field in dataclasses.fields(Rule)}
