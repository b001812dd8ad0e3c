"""`python -m training.finetune` end to end on tiny models and fixtures: records, resuming, refusals, the own split."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data.params import UserError
from tests.training import small_simla, sync_tiny
from tests.training.official import fixture_fashiongen
from tests.training.official.fixture_statements import FIXTURES, write_nlvr, write_nlvr2, write_snli_ve
from training import finetune
from training.benchmarks import nlvr
from training.fused.heads.answers import Answers, folder_of
from training.fused.heads.recipes import RECIPES, read_tuning
from training.fused.pretrained import Towers
from training.methods.simla import Simla
from training.methods.syncmask import SyncMask
from training.official.contract import Picture
from training.official.exam import CannotSit

TRAINER = {"epochs": 2, "batch": 8, "threads": 1, "log_every": 1, "precision": "fp32", "warmup": 1}
BENCHES = Path("benchmarks")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, two tiny models and no benchmark, as working directory."""
    monkeypatch.chdir(tmp_path)
    changes = {task: {"trainer": TRAINER, "image_blocks": 1, "max_tokens": 12, "grid": [2, 6]} for task in RECIPES}
    params = {"preset": "starter", "starter": {"finetune": changes}, "paper": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    Simla(Simla.Config(queue=16, codes=24), small_simla.encoder()).save(tmp_path / "store/models/simla")
    settings = SyncMask.Config(queue=16, fusion_layer=2, towers=Towers(text_layers=4))
    SyncMask(settings, sync_tiny.encoder()).save(tmp_path / "store/models/syncmask")
    official = nlvr.BENCHMARKS["nlvr"]  # the hashes of whose files are known, and not those of a fixture's
    unchecked = tuple(dataclasses.replace(file, sha256=None) for file in official.files)
    monkeypatch.setitem(nlvr.BENCHMARKS, "nlvr", dataclasses.replace(official, files=unchecked))
    return tmp_path


def run(model: str, task: str, *more: str) -> int:
    return finetune.main([model, task, "--folder", str(BENCHES), *more])


def record(model: str, task: str) -> dict:  # type: ignore[type-arg]
    return json.loads((folder_of(model, task) / "record.json").read_text())


def test_nlvr_without_its_training_part_is_divided(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fifth of the sets is scored, the others fitted on; the head then refuses what it was fitted on."""
    FIXTURES["nlvr"](BENCHES)
    assert run("simla", "nlvr") == 0, capsys.readouterr().err
    summary = record("simla", "nlvr")["summary"]
    assert summary["own_split"]
    assert (summary["fitted_on"], summary["scored_on"]) == (18, 6)
    outcomes, items = pq.read_table(folder_of("simla", "nlvr") / "outcomes.parquet"), nlvr.load(BENCHES / "nlvr")
    groups = set(outcomes["unit"].to_pylist())
    assert len(groups) == 3
    answers = Answers(folder_of("simla", "nlvr"), BENCHES)
    held = items.filter(pa.compute.is_in(items["group"], pa.array(sorted(groups))))
    for part, refused in ((held, False), (items, True)):
        asked = [(Picture(path[0]),) for path in part["pictures"].to_pylist()]
        if refused:
            with pytest.raises(CannotSit, match="was fitted on 18 of the 24 items"):
                answers.classes(asked, part["text"].to_pylist(), nlvr.CLASSES)
        else:
            assert answers.classes(asked, part["text"].to_pylist(), nlvr.CLASSES).shape == (6, 2)
    assert run("simla", "nlvr") == 0
    assert "up to date" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["simla", "syncmask"])
def test_pairs_are_fitted_on_their_training_part(model: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nlvr2(BENCHES, "train", 16, 5)
    write_nlvr2(BENCHES, "dev", 12, 6)
    assert run(model, "nlvr2") == 0, capsys.readouterr().err
    found = record(model, "nlvr2")
    assert {"dev accuracy", "dev consistency"} <= set(found["summary"])
    assert [check["name"] for check in found["checks"]] == ["loss_falls", "beyond_commonest"]
    assert not (folder_of(model, "nlvr2") / "fitted.parquet").exists()


def test_three_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count, seed in (("train", 18, 7), ("dev", 12, 8), ("test", 12, 9)):
        write_snli_ve(BENCHES, split, count, seed)
    assert run("simla", "snli_ve") == 0, capsys.readouterr().err
    assert record("simla", "snli_ve")["summary"]["classes"] == 3


@pytest.mark.parametrize("level", ["category", "subcategory"])
def test_categories_by_photo_and_text(level: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes are those of the training part; the text alone is scored beside, with a grey photo."""
    fixture_fashiongen.FIXTURES[f"fashiongen_{level}"](BENCHES)
    assert run("simla", f"fashiongen_{level}") == 0, capsys.readouterr().err
    summary = record("simla", f"fashiongen_{level}")["summary"]
    assert summary["classes"] == {"category": 48, "subcategory": 121}[level]
    assert {"accuracy", "macro-F1", "text-only accuracy", "text-only macro-F1"} <= set(summary)


def test_a_finished_run_leaves_no_checkpoints(place: Path) -> None:
    FIXTURES["nlvr"](BENCHES)
    assert run("simla", "nlvr") == 0
    assert not list(Path("runs/train").rglob("*.pt"))


def test_a_stopped_run_gives_the_same_head(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its third step and taken up again: the same weights, bit by bit."""
    FIXTURES["nlvr"](BENCHES)
    assert run("simla", "nlvr") == 0
    whole = (folder_of("simla", "nlvr") / "head.safetensors").read_bytes()
    shutil.rmtree(folder_of("simla", "nlvr"))
    step = finetune.trainer.Run.step

    def breaking(self: finetune.trainer.Run, number: int) -> None:
        if number == 3:
            self.save(3)
            raise KeyboardInterrupt
        step(self, number)

    monkeypatch.setattr(finetune.trainer.Run, "step", breaking)
    with pytest.raises(KeyboardInterrupt):
        run("simla", "nlvr")
    monkeypatch.setattr(finetune.trainer.Run, "step", step)
    assert not folder_of("simla", "nlvr").exists()
    assert run("simla", "nlvr") == 0
    assert (folder_of("simla", "nlvr") / "head.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [
        ("simla", "chess", "task `chess` is unknown"), ("clip", "nlvr", "store/models/clip: no such model"),
        ("simla", "nlvr", "NLVR is not installed"), ("simla", "snli_ve", "SNLI-VE is not installed"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(
    model: str, task: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, task) == 2
    assert said in capsys.readouterr().err
    assert not Path("store/finetuned").exists() or not any(Path("store/finetuned").iterdir())


def test_a_training_part_is_needed_where_none_can_be_split_off(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    FIXTURES["nlvr2"](BENCHES)
    assert run("simla", "nlvr2") == 2
    assert "no training part of NLVR2" in capsys.readouterr().err


def test_the_papers_order_is_demanded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NLVR2 starts from text assignment in the paper's recipe."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["starter"]["finetune"]["nlvr2"]["after"] = "text_assignment"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    write_nlvr2(BENCHES, "train", 16, 5)
    write_nlvr2(BENCHES, "dev", 12, 6)
    assert run("simla", "nlvr2") == 2
    assert "python -m training.finetune simla text_assignment" in capsys.readouterr().err


def test_a_missing_head_is_said(place: Path) -> None:
    with pytest.raises(UserError, match=r"Run `python -m training\.finetune simla nlvr2`"):
        Answers(folder_of("simla", "nlvr2"), BENCHES)


def test_single_values_are_changed_in_params(place: Path) -> None:
    tuning = read_tuning("nlvr")
    assert (tuning.grid, tuning.trainer.batch, tuning.trainer.lr) == ((2, 6), 8, RECIPES["nlvr"].starter.trainer.lr)


def test_groups_are_the_units_of_the_test() -> None:
    """Four items of one group are one draw: a head right on the rarer label of 6 of 8 groups."""

    def cell(groups: int, right: int) -> pa.Table:
        labels = ["no", "no", "no", "yes"] * groups
        outcome = [1.0, 1.0, 1.0, 1.0] * right + [1.0, 1.0, 1.0, 0.0] * (groups - right)
        units = [group for group in range(groups) for _ in range(4)]
        return pa.table({"slice": labels, "unit": units, "outcome": outcome})

    commonest, p = finetune.beyond_commonest(cell(8, 6))
    assert commonest == 75.0
    assert p < 0.01
    assert finetune.beyond_commonest(cell(8, 0)) == (75.0, 1.0)


def test_text_assignment_comes_before_pairs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pre-step on the tiny catalog, and NLVR2 from its stack."""
    from training import train

    params = yaml.safe_load(Path("params.yaml").read_text())
    changes = {"trainer": TRAINER, "image_blocks": 1, "max_tokens": 12}
    params["starter"]["finetune"] = {"text_assignment": changes, "nlvr2": changes | {"after": "text_assignment"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert train.main(["simla"]) == 0, capsys.readouterr().err
    assert run("simla", "text_assignment") == 0, capsys.readouterr().err
    assert 0 <= record("simla", "text_assignment")["summary"]["val_assignment_accuracy"] <= 1
    write_nlvr(BENCHES, "dev", 12, 1)
    write_nlvr2(BENCHES, "train", 16, 5)
    write_nlvr2(BENCHES, "dev", 12, 6)
    assert run("simla", "nlvr2") == 0, capsys.readouterr().err
    inputs = [entry["path"] for entry in record("simla", "nlvr2")["inputs"]]
    assert "store/finetuned/simla-text_assignment" in inputs
