"""VQA and RefCOCO+ end to end: fine-tuned by the command from a tiny model, scored, and asked again by the exam."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from data.params import UserError
from tests.training import small_simla, sync_tiny
from tests.training.official import fixture_refcoco, fixture_vqa
from training import finetune
from training.benchmarks import refcoco, vqa
from training.fused.heads.answers import folder_of
from training.fused.heads.recipes import RECIPES, read_tuning
from training.fused.pairs import Pairs
from training.fused.pretrained import Towers
from training.fused.questions import Questions
from training.methods.simla import Simla
from training.methods.syncmask import SyncMask
from training.official.contract import Picture
from training.official.exam import ModelExam

TRAINER = {"epochs": 1, "batch": 16, "lr": 1e-3, "head_lr": 1e-3, "warmup": 5, "threads": 1, "log_every": 3,
           "precision": "fp32"}  # fmt: skip
BENCHES = Path("benchmarks")
WORDS = [*small_simla.SPECIALS, *dict.fromkeys([*fixture_vqa.WORDS, *fixture_refcoco.WORDS])]


def params(folder: Path, **changes: object) -> None:
    tasks = {
        task: {"trainer": TRAINER | changes, "image_blocks": None, "max_tokens": 12} for task in ("vqa", "refcoco")
    }
    content = {"preset": "starter", "starter": {"finetune": tasks}, "paper": {}}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, two tiny models and both benchmarks, as working directory."""
    monkeypatch.chdir(tmp_path)
    params(tmp_path)
    simla = Simla(Simla.Config(queue=32, codes=24), small_simla.encoder(WORDS))
    with torch.no_grad():
        for parameter in simla.parameters():  # large enough to learn in seconds
            if parameter.ndim >= 2:
                parameter.mul_(3)
    simla.save(tmp_path / "store/models/simla")
    syncmask = SyncMask.Config(queue=32, fusion_layer=2, towers=Towers(text_layers=4))
    SyncMask(syncmask, sync_tiny.encoder()).save(tmp_path / "store/models/syncmask")
    fixture_vqa.vqa(BENCHES)
    fixture_refcoco.refcoco(BENCHES)
    return tmp_path


def run(model: str, task: str) -> dict:  # type: ignore[type-arg]
    """The record of a fine-tuning."""
    assert finetune.main([model, task, "--folder", str(BENCHES)]) == 0
    found: dict = json.loads((folder_of(model, task) / "record.json").read_text())  # type: ignore[type-arg]
    return found


@pytest.mark.parametrize(("model", "task"), [("simla", "vqa"), ("syncmask", "vqa"), ("syncmask", "refcoco")])
def test_both_methods_take_both_tasks(model: str, task: str, place: Path) -> None:
    found = run(model, task)
    benchmark = {"vqa": vqa.BENCHMARK, "refcoco": refcoco.BENCHMARK}[task]
    items = benchmark.load(BENCHES / task)
    outcomes = pq.read_table(folder_of(model, task) / "outcomes.parquet")
    metrics = {name: round(value, 2) for name, value in benchmark.metrics(outcomes).items()}
    assert found["summary"]["scored_on"] == items.num_rows
    assert {name: found["summary"][name] for name in metrics} == metrics
    assert [check["name"] for check in found["checks"]] == ["loss_falls"]


def test_questions_are_learnt_and_answered_again_by_the_exam(place: Path) -> None:
    """Colours of walls, of two words each; the commonest answer gets a quarter of them, and 80 % where it is asked
    whether a wall is dark."""
    params(place, epochs=20, clip=1.0)
    found = run("simla", "vqa")["summary"]
    assert found["other"] > 75
    assert found["yes/no"] > 90
    outcomes = vqa.score(vqa.load(BENCHES / "vqa"), ModelExam(place / "store/models/simla", BENCHES))
    assert vqa.metrics(outcomes)["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)


def test_the_named_square_is_found_though_no_box_was_seen(place: Path) -> None:
    """Guessing between the two squares gets half."""
    params(place, epochs=40, lr=3e-3, head_lr=3e-3, clip=1.0)
    found = run("simla", "refcoco")["summary"]
    shares = [found[split] for split in ("val", "testA", "testB")]
    assert (12 * shares[0] + 8 * shares[1] + 8 * shares[2]) / 28 > 75
    exam = ModelExam(place / "store/models/simla", BENCHES)  # which takes the fine-tuned one
    outcomes = refcoco.score(refcoco.load(BENCHES / "refcoco"), exam)
    assert refcoco.metrics(outcomes)["val"] == pytest.approx(found["val"], abs=0.01)


def test_batches_of_questions(place: Path) -> None:
    encoder, settings = small_simla.encoder(WORDS), read_tuning("vqa").trainer
    asked = vqa.entries(BENCHES / "vqa", "train")
    source = Questions(asked, encoder, settings, BENCHES)
    batch = source.batches(0)[0]
    weights = [batch["weights"][batch["of"] == row].sum().item() for row in range(16)]
    assert weights == pytest.approx([1.0] * 16)
    assert len(batch["answers"].ids) == len(batch["of"])
    by_id = {row["item_id"]: row for row in asked}
    first = by_id[source.row_ids(0)[0]]
    assert int((batch["of"] == 0).sum()) == len(set(first["answers"]))
    source.close()


def test_no_batch_of_pairs_shows_a_photo_twice(place: Path) -> None:
    pictures, texts = refcoco.training_pairs(BENCHES / "refcoco")
    source = Pairs(pictures, texts, small_simla.encoder(WORDS), read_tuning("refcoco").trainer, BENCHES)
    for step in range(source.steps):
        (batch,) = source.batches(step)
        assert len(batch["product"].unique()) == 16
        assert batch["image"].shape == (16, 3, 32, 32)
    source.close()
    one = [Picture("coco/train2014/COCO_train2014_000000000100.jpg")] * 40
    with pytest.raises(UserError, match="is more than the 1 pictures"):
        Pairs(one, texts[:40], small_simla.encoder(WORDS), read_tuning("refcoco").trainer, BENCHES)


@pytest.mark.parametrize(
    ("task", "file"), [("vqa", "v2_mscoco_train2014_annotations.json"), ("refcoco", "refcoco+_train.json")]
)
def test_a_missing_training_part_is_named(
    task: str, file: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (BENCHES / task / file).unlink()
    assert finetune.main(["simla", task, "--folder", str(BENCHES)]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{BENCHES / task / file}: not found, and" in said
    assert not folder_of("simla", task).exists()


def test_recipes_are_those_of_the_papers() -> None:
    answers, pointing = RECIPES["vqa"].paper, RECIPES["refcoco"].paper
    assert (answers.trainer.epochs, answers.trainer.lr, answers.grid, answers.alpha) == (8, 2e-5, (24, 24), 0.4)
    assert (pointing.trainer.epochs, pointing.trainer.lr, pointing.trainer.lr_end, pointing.grid) == (
        5, 1e-5, 1e-6, (24, 24)
    )  # fmt: skip
