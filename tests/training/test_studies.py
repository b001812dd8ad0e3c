"""Studies: paired numbers worked out by hand, runs that are kept, pages that say what was measured."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data import stage
from data.params import UserError
from tests.training.jobs import worker
from training.outcomes import outcome_table
from training.studies import STUDIES, __main__, load, report
from training.studies import runs as made
from training.studies.processes import in_processes
from training.studies.study import Study, analyse

OUTCOMES = {("a", 0): [1, 0, 0, 0], ("a", 1): [1, 1, 0, 0], ("b", 0): [1, 1, 1, 0], ("b", 1): [1, 1, 0, 0]}
UNITS = [0, 0, 1, 2]


def table(values: list[int], slices: list[str] | None = None) -> pa.Table:
    items = pa.table({"item_id": [f"i{n}" for n in range(len(values))], "group": pa.array(UNITS[: len(values)])})
    array = np.array(values, np.float64)
    return outcome_table("exam", "accuracy", items, array, array, slices)


def study(run: Callable[[str, int], pa.Table] | None = None, **changes: object) -> Study:
    settings = {
        "name": "toy", "title": "A toy", "claim": "B is better.", "arms": {"a": "the plain one", "b": "the new one"},
        "reference": "a", "seeds": (0, 1), "seconds": 60.0, "headline": (("exam", "accuracy", ""),),
        "run": run or (lambda arm, seed: table(OUTCOMES[arm, seed])),
    }  # fmt: skip
    return Study(**{**settings, **changes})  # type: ignore[arg-type]


def runs() -> dict[tuple[str, int], pa.Table]:
    return {key: table(values) for key, values in OUTCOMES.items()}


def test_means_and_paired_differences() -> None:
    found = analyse(study(), runs())
    assert [(n["arm"], n["value"], n["seeds"], n["n"]) for n in found["numbers"]] == [
        ("a", 0.375, [0.25, 0.5], 4), ("b", 0.625, [0.75, 0.5], 4),
    ]  # fmt: skip
    (difference,) = found["differences"]
    assert difference["arm"] == "b"
    assert difference["against"] == "a"
    assert difference["value"] == 0.25
    assert difference["seeds"] == [0.5, 0.0]
    assert difference["low"] < 0 < difference["high"] <= 1
    json.dumps(found, allow_nan=False)


def test_an_arm_may_have_a_rival_of_its_own_and_slices_are_told_apart() -> None:
    def sliced(values: list[int]) -> pa.Table:
        return table(values, ["x", "x", "y", "y"])

    three = {**{k: sliced(v) for k, v in OUTCOMES.items()}, ("c", 0): sliced([0] * 4), ("c", 1): sliced([0] * 4)}
    arms = {"a": "1", "b": "2", "c": "3"}
    found = analyse(study(arms=arms, against={"c": ("b",)}), three)
    pairs = {(d["arm"], d["against"], d["slice"]): d["value"] for d in found["differences"]}
    assert pairs == {
        ("b", "a", ""): 0.25, ("c", "b", ""): -0.625, ("b", "a", "x"): 0.25, ("c", "b", "x"): -1.0,
        ("b", "a", "y"): 0.25, ("c", "b", "y"): -0.25,
    }  # fmt: skip


def test_other_items_are_no_pair() -> None:
    broken = {**runs(), ("b", 1): table([1, 1, 0])}
    with pytest.raises(UserError, match="study toy: arm b, seed 1 was scored on other items for exam/accuracy"):
        analyse(study(), broken)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the records that a study's runs are bound to."""
    monkeypatch.chdir(tmp_path)
    for folder in made.INPUTS:
        with stage.run(folder.name, kind="x", command="x", out=folder, inputs=[], parameters={}, force=True) as run:
            (run.out / "x").write_text(folder.name)
    Path("training/studies").mkdir(parents=True)
    Path("training/studies/toy.py").write_text("# one\n")
    Path("README.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    return tmp_path


def test_a_stopped_study_goes_on_and_a_change_of_code_starts_over(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, int]] = []

    def run(arm: str, seed: int) -> pa.Table:
        if len(done) == 3:
            done.append(("stopped", 0))
            raise KeyboardInterrupt
        done.append((arm, seed))
        return table(OUTCOMES[arm, seed])

    monkeypatch.setattr(__main__, "STUDIES", ("toy",))
    for module in (__main__, made):
        monkeypatch.setattr(module, "load", lambda name: study(run))
    assert __main__.main(["--jobs", "1"]) == 130
    assert "finished runs are kept" in capsys.readouterr().err
    assert not Path("docs/studies/toy.md").exists()
    assert __main__.main(["--jobs", "1"]) == 0
    assert done == [("a", 0), ("b", 0), ("a", 1), ("stopped", 0), ("b", 1)]
    assert __main__.main(["--jobs", "1"]) == 0
    assert len(done) == 5
    page = Path("docs/studies/toy.md").read_text()
    assert "| b | 62.5<br>+25.0 (" in page
    assert "+0.0 to +50.0" in page
    assert Path("docs/studies/toy.png").stat().st_size > 5000
    readme = Path("README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("\nafter\n")
    assert "| a | 37.5 |" in readme
    assert "old" not in readme
    Path("training/studies/toy.py").write_text("# two\n")
    assert __main__.main(["--jobs", "1"]) == 0
    assert len(done) == 9


def test_processes_give_every_result_and_end_together() -> None:
    jobs = [("one", 0.0), ("two", 0.0), ("three", 0.0)]
    assert sorted(in_processes(worker, jobs, 2)) == sorted((job, job[0].upper()) for job in jobs)
    begun = time.monotonic()
    with pytest.raises(UserError, match="a bad job"):
        list(in_processes(worker, [("long", 600.0), ("bad", 0.0), ("long", 600.0)], 2))
    assert time.monotonic() - begun < 300


def test_missing_inputs_and_unknown_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["nothing"]) == 2
    assert "study `nothing` is unknown; choose from ce_clip" in capsys.readouterr().err
    monkeypatch.setattr(__main__, "load", lambda name: study())
    assert __main__.main(["ce_clip"]) == 2
    assert "store/dataset: not found. `make studies` makes it" in capsys.readouterr().err


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_whole(name: str) -> None:
    found = load(name)
    assert found.name == name
    assert found.reference in found.arms
    assert {*found.against, *itertools.chain(*found.against.values())} <= set(found.arms)
    assert len(found.seeds) >= 3
    assert found.headline
    assert all(Path(path).exists() for path in found.code)


def test_all_studies_take_about_four_hours_at_most() -> None:
    seconds = sum(found.seconds * len(found.arms) * len(found.seeds) for found in map(load, STUDIES))
    assert seconds <= 4.2 * 3600
