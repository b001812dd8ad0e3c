"""`fittingroom trace` and `fittingroom impact`: whole chains, every flipped byte, and what a product is in."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import dvc, record
from orchestration import cli
from serving import registry
from serving.impact import impact
from tests.data import chains

OUTSIDE = ("runs/records/",)  # facts of a run, which no record speaks of


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which `ce_clip` is live as version 1; read-only, or put back as it was."""
    root = tmp_path_factory.mktemp("promoted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        chains.finish()
        chains.go_live()
        yield root


@pytest.fixture
def home(promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workspace that a test may change."""
    shutil.copytree(promoted, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = cli.main([*arguments, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else printed.err


def test_trace_of_an_endpoint_is_whole_and_ends_at_the_rows(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = call(capsys, "trace", "search", "--rows", "2")
    assert (code, found["whole"], found["breaks"]) == (0, True, [])
    assert found["version"]["version"] == 1
    assert {r["kind"] for r in found["records"]} == {
        "export", "verdict", "model", "evaluation", "negatives", "suites", "dataset", "drop",
    }  # fmt: skip
    assert found["rows"]["total"] == 6
    assert found["rows"]["splits"] == {"train": 3, "test": 2, "val": 1}
    shown = [(row["id"], row["title"], row["drop"], row["row"]) for row in found["rows"]["shown"]]
    assert shown == [("1", "Red Shirt 1", "drop-1", 2), ("2", "Red Shirt 2", "drop-1", 3)]
    assert found["rows"]["shown"][0]["content"] == "1" * 64


def test_trace_is_readable_on_a_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "search"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "search version 1, live: ce_clip",
        "drop-1: 6 of 7 rows accepted",
        "store/exports/ce_clip",
        "hashed in",
    ):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 80


def answer(**changes: Any) -> dict[str, Any]:
    hits = [{"id": "6", "title": "Red Shirt 6", "score": 0.9}, {"id": "1", "title": "Red Shirt 1", "score": 0.8}]
    return {"endpoint": "search", "version": 1, "record": chains.model_of("ce_clip"), "hits": hits, **changes}


def test_trace_of_an_answer_shows_the_rows_of_its_products(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("answer.json").write_text(json.dumps(answer()))
    code, found = call(capsys, "trace", "answer.json")
    assert (code, [row["id"] for row in found["rows"]["shown"]]) == (0, ["6", "1"])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(answer(record="f" * 64))))
    code, found = call(capsys, "trace", "-")
    assert (code, found["breaks"][0]["link"]) == (1, "answer -> search version 1")


@pytest.mark.parametrize("target", ["model", "prefix", "folder", "record file", "product", "version"])
def test_what_can_be_traced(target: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = chains.model_of("ce_clip")
    given_as = {
        "model": model, "prefix": model[:8], "folder": "store/suites", "record file": "store/suites/record.json",
        "product": "3", "version": "search@1",
    }  # fmt: skip
    code, found = call(capsys, "trace", given_as[target])
    assert (code, found["whole"]) == (0, True)
    assert bool(found["version"]) == (target in ("model", "prefix", "version"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "nonsense"], "`nonsense` is no endpoint, folder, answer"),
        (["trace", "search@7"], "never had a live version 7; it had 1"),
        (["trace", "compose"], "nothing is live at compose"),
        (["trace", "store"], "store: holds no record.json"),
        (["trace", "bad.json"], "bad.json: not an answer"),
        (["trace", "search", "--rows", "-1"], "--rows -1"),
        (["impact", "33"], "product 33 is in no drop that has landed"),
        (["impact", "1", "--catalog", "toys"], "product 1 of catalog toys is in no drop"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.json").write_text('{"hits": []}')
    code, said = call(capsys, *arguments)
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1


def chain_files() -> list[Path]:
    files = [f for root in ("store", "runs") for f in record.files_below(Path(root))]
    return [f for f in files if not f.as_posix().startswith(OUTSIDE) and f.parts[1] != "corpus"]


def flip(path: Path, offset: int, mask: int) -> bytes:
    """Change one byte of a file in place; returns what it was."""
    before = path.read_bytes()
    path.write_bytes(before[:offset] + bytes([before[offset] ^ mask]) + before[offset + 1 :])
    return before


def named(path: Path, found: dict[str, Any]) -> bool:
    """Whether a break names a file; a line of the history is named by its number too."""
    return any(part["file"].split(" line ")[0] == path.as_posix() for part in found["breaks"])


def test_every_file_of_the_chain_is_covered_by_a_flip(promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One byte in the middle of each file: drops, reports, tables, weights, verdict, export, live copy, history."""
    files = chain_files()
    assert {"registry.jsonl", "CURRENT", "aliases.json", "config.pbtxt", "rows.parquet", "verdict.json"} <= {
        f.name for f in files
    }
    for path in files:
        before = flip(path, path.stat().st_size // 2, 1)
        try:
            code, found = call(capsys, "trace", "search")
            assert code == 1, f"{path}: not noticed"
            assert named(path, found), f"{path}: not named in {[part['file'] for part in found['breaks']]}"
        finally:
            path.write_bytes(before)
    assert call(capsys, "trace", "search")[0] == 0


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_byte_is_named(data: st.DataObject, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = [f for f in chain_files() if f.suffix in (".json", ".jsonl", ".pbtxt")]  # where a flip can still be read
    path = data.draw(st.sampled_from(text), "file")
    offset = data.draw(st.integers(0, path.stat().st_size - 1), "offset")
    before = flip(path, offset, data.draw(st.integers(1, 255), "mask"))
    try:
        code, found = call(capsys, "trace", "search")
        assert code == 1
        assert named(path, found)
    finally:
        path.write_bytes(before)


def test_a_history_without_its_last_lines_or_with_one_more_is_broken(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = registry.HISTORY.read_bytes().splitlines(keepends=True)
    registry.HISTORY.write_bytes(b"".join(lines[:1] + lines[2:]))
    code, found = call(capsys, "trace", "search")
    assert (code, found["breaks"][0]["file"]) == (1, f"{registry.HISTORY} line 2")


def containing(found: dict[str, Any]) -> set[str]:
    return {held["stage"] for held in found["contained_in"]}


def test_impact_of_a_product_of_train_val_and_test(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: train is learnt from everywhere, val is not in negatives and corpus, test is in suites and the index."""
    served = {"dataset", "base", "train@ce_clip", "evaluate@base", "evaluate@ce_clip", "gate@ce_clip", "export@ce_clip"}
    code, found = call(capsys, "impact", "1")
    assert (code, containing(found)) == (0, served | {"negatives", "corpus"})
    assert containing(call(capsys, "impact", "4")[1]) == served
    code, found = call(capsys, "impact", "5")
    assert containing(found) == {
        "dataset",
        "suites",
        "evaluate@base",
        "evaluate@ce_clip",
        "gate@ce_clip",
        "export@ce_clip",
    }
    (version,) = found["versions"]
    assert (version["endpoint"], version["version"], version["how"]) == ("search", 1, ["in its product index"])


def test_impact_of_a_picture_that_is_in_the_index_under_its_twin(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(capsys, "impact", "6")[1]
    (export,) = [held for held in found["contained_in"] if held["kind"] == "export"]
    assert export["how"] == ["its picture is in the index, as product 5"]


def test_a_product_in_quarantine_is_in_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = call(capsys, "impact", chains.REFUSED)
    assert (code, found["contained_in"], found["versions"], found["steps"]) == (0, [], [], [])
    assert [row["state"] for row in found["rows"]] == ["quarantined"]


def test_impact_says_what_to_do_in_order(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [step["command"] for step in call(capsys, "impact", "1")[1]["steps"]]
    assert commands == [
        "fittingroom land DROP", "dvc repro dataset", "dvc repro corpus negatives", "dvc repro base train@ce_clip",
        "dvc repro evaluate@base evaluate@ce_clip gate@ce_clip", "dvc repro export@ce_clip",
        "fittingroom promote ce_clip",
    ]  # fmt: skip
    assert cli.main(["impact", "1"]) == 0
    printed = capsys.readouterr().out
    assert "search version 1" in printed
    assert "drop-1 line 2" in printed


def retrain(without: tuple[str, ...], seed: int) -> None:
    """What follows a withdrawal: everything is made again without the product."""
    chains.dataset(without=without)
    chains.train("base", [chains.DATASET], seed)
    chains.examine("base")
    chains.train("ce_clip", [chains.DATASET, Path("store/negatives"), Path("store/models/base")], seed)
    chains.examine("ce_clip")
    chains.judge("ce_clip")
    chains.export("ce_clip")


def test_after_a_withdrawal_exactly_the_old_versions_contain_the_product(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old dataset is gone, without a cache; what the promotion kept of it still answers."""
    retrain(("1",), seed=2)
    found = call(capsys, "impact", "1")[1]
    assert [(v["version"], v["alias"]) for v in found["versions"]] == [(1, "champion")]
    assert [step["command"] for step in found["steps"]] == ["fittingroom promote ce_clip"]
    assert chains.go_live() == 2
    found = call(capsys, "impact", "1")[1]
    assert [(v["version"], v["alias"]) for v in found["versions"]] == [(1, "previous")]
    assert [v["version"] for v in call(capsys, "impact", "2")[1]["versions"]] == [1, 2]
    code, traced = call(capsys, "trace", "search@1")
    assert (code, traced["breaks"]) == (1, [])
    assert {r["kind"] for r in traced["records"] if r["absent"]} >= {"dataset", "negatives"}
    assert "which the promotion kept" in traced["rows"]["gone"]
    assert call(capsys, "trace", "search")[0] == 0


def test_a_live_version_is_whole_after_a_second_drop_and_a_retraining(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it was made from has been replaced in the workspace; DVC's cache holds it, and the first drop is here."""
    subprocess.run(["git", "init", "-q"], check=True)
    dvc.call("init", "-q")
    made = [path.as_posix() for name in ("*", "models/*", "evaluations/*", "verdicts/*", "exports/*")
            for path in sorted(Path("store").glob(name)) if (path / "record.json").is_file()]  # fmt: skip
    dvc.call("add", "-q", *made)
    chains.drop(2, ["8"])
    retrain((), seed=2)
    code, found = call(capsys, "trace", "search")
    assert (code, found["breaks"]) == (0, [])
    states = {r["stage"]: r["places"][0]["state"] for r in found["records"]}
    assert {name for name, state in states.items() if state == "here"} == {"land", "train@ce_clip"}, (
        "a champion is kept"
    )
    assert set(states) > {"dataset", "negatives", "base", "export@ce_clip", "gate@ce_clip"}
    (dataset,) = [r for r in found["records"] if r["kind"] == "dataset"]
    assert dataset["inputs"][0]["note"] == "1 landed since"
    assert found["rows"]["total"] == 6
    assert call(capsys, "impact", "8")[1]["versions"] == []
    assert [v["version"] for v in call(capsys, "impact", "1")[1]["versions"]] == [1]


def test_what_dvc_has_replaced_is_traced_in_its_cache(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = record.read(Path("store/models/clip")).id
    workspace.edit(toy / "params.yaml", "share: 0.1", "share: 0.2")
    workspace.repro(toy, "train@clip")
    assert record.read(Path("store/models/clip")).id != old
    code, found = call(capsys, "trace", old)
    assert (code, found["breaks"]) == (0, [])
    states = {r["stage"]: r["places"][0]["state"] for r in found["records"]}
    assert states == {"clip": "cached", "dataset": "cached", "base": "cached"}
    (item,) = [o for o in record.read(Path("store/dataset")).outputs if o["path"] == "plot.png"]
    cache = Path(dvc.call("cache", "dir").strip())
    picture = next(f for f in record.files_below(cache) if record.hash_file(f) == item["hash"])
    shutil.copyfile(picture, toy / "copy")  # the cache is linked with the workspace where it can be
    picture.unlink()
    shutil.copyfile(toy / "copy", picture)
    flip(picture, 100, 1)
    code, found = call(capsys, "trace", old)
    assert code == 1
    assert any(str(picture) in part["file"] for part in found["breaks"])


def test_impact_of_an_id_that_two_catalogs_have_asks_which(home: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = chains.drop(2, ["1"])
    table = pq.read_table(folder / "products.parquet")
    pq.write_table(table.set_column(table.schema.get_field_index("catalog"), "catalog", pa.array(["grocery"])),
                   folder / "products.parquet")  # fmt: skip
    with pytest.raises(Exception, match="product 1 is in the catalogs fashion, grocery"):
        impact("1")
    assert impact("1", "fashion").versions
    assert not impact("1", "grocery").versions
