"""Schedules, averages, clipping, validation, accumulation and errors of the training loop."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn

from data.params import UserError, strict
from tests.training import ranks, tiny
from training import checkpoint, distributed, train, trainer
from training.averaging import Average
from training.config import TrainerConfig
from training.distributed import Outputs
from training.journal import Journal
from training.methods.clip import Clip
from training.schedule import learning_rate
from training.steps import backward
from training.task import Task


def test_the_schedule_by_epochs_has_simlas_check_values() -> None:
    """SIMLA configs/Pretrain.yaml and scheduler/cosine_lr.py: 30 epochs, 20 stairs of 100 iterations."""
    config = TrainerConfig(
        schedule="epochs", epochs=30, lr=1e-4, lr_start=1e-5, lr_end=1e-5, warmup=2000, warmup_unit=100
    )
    expected = {(0, 0): 1e-5, (99, 0): 1e-5, (1000, 0): 5.5e-5, (2000, 0): 1e-4, (7000, 0): 1e-4}
    expected |= {(9000, 1): 9.97535e-5, (90_000, 10): 7.75e-5, (130_000, 15): 5.5e-5, (250_000, 29): 1.02465e-5}
    for (step, epoch), rate in expected.items():
        assert learning_rate(step, 270_000, config, epoch) == pytest.approx(rate, rel=1e-5), (step, epoch)


def test_constant_and_cosine_end_where_they_are_told() -> None:
    constant = TrainerConfig(schedule="constant", lr=3.0, warmup=0)
    assert {learning_rate(step, 50, constant) for step in range(50)} == {3.0}
    cosine = TrainerConfig(lr=1.0, lr_start=0.5, lr_end=0.25, warmup=2)
    assert [learning_rate(step, 12, cosine) for step in (0, 1, 2, 7)] == pytest.approx([0.75, 1.0, 1.0, 0.625])
    assert learning_rate(11, 12, cosine) > 0.25


def test_an_average_follows_its_formula_and_leaves_the_trained_weights_alone() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = Average(module, 0.9)
    nn.init.ones_(module.weight)
    for expected in (0.1, 0.19, 0.271):
        average.update()
        assert average.state()["weight"].item() == pytest.approx(expected)
    with average.in_place():
        assert module.weight.item() == pytest.approx(0.271)
    assert module.weight.item() == 1.0
    average.install()
    assert module.weight.item() == pytest.approx(0.271)


def test_the_average_is_what_is_trained(workspace: Path) -> None:
    last, _ = ranks.fit("clip", "last")
    frozen, _ = ranks.fit("clip", "almost-frozen", ema=0.999999)
    start, _ = ranks.build("clip")
    named = dict(start.named_parameters())
    moved = max(float((value - named[key].detach()).abs().max()) for key, value in last.items())
    kept = max(float((value - named[key].detach()).abs().max()) for key, value in frozen.items())
    assert kept < 0.01 * moved


def test_large_gradients_are_scaled_down(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    plain = torch.optim.AdamW.step

    def note(optimiser: torch.optim.AdamW, *args: object) -> object:
        found = [p.grad.flatten() for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.cat(found).norm()))
        return plain(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    _, free = ranks.fit("clip", "free", clip=1e9)
    _, _ = ranks.fit("clip", "tight", clip=1e-3)
    half = len(norms) // 2
    assert [line["grad_norm"] for line in free] == pytest.approx(norms[:half], rel=1e-3)
    assert all(norm == pytest.approx(1e-3, rel=1e-2) for norm in norms[half:])


class Judged(Clip):
    """The control, whose validations say what the test wants."""

    answers = iter(())

    def validate(self) -> dict[str, float]:
        return {"score": next(self.answers)}  # type: ignore[call-overload]


def test_the_best_validated_weights_are_the_trained_model(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 4, "validate_every": 1, "select": "best"}
    monkeypatch.setattr(Judged, "answers", iter([0.2, 0.9, 0.4, 0.9]))
    monkeypatch.setattr("training.methods.clip.Clip", Judged)
    kept: list[dict[str, Tensor]] = []
    validate = trainer.Run.validate

    def note(run: trainer.Run, done: int) -> None:
        validate(run, done)
        kept.append({key: value.detach().clone() for key, value in run.task.named_parameters() if value.requires_grad})

    monkeypatch.setattr(trainer.Run, "validate", note)
    learnt, _ = ranks.fit("clip", "best", **settings)
    assert len(kept) == 4
    assert all(torch.equal(value, kept[1][key]) for key, value in learnt.items())
    assert any(not torch.equal(value, kept[3][key]) for key, value in learnt.items())


def test_validations_are_in_the_model_folder(workspace: Path) -> None:
    tiny.change_params(workspace, "starter.methods.clip", trainer={"validate_every": 2, "epochs": 4})
    assert train.main(["clip"]) == 0
    text = Path("store/models/clip/validation.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [8, 16]
    assert all(0 <= line["val_t2i_R@10"] <= 1 for line in lines)


def test_the_same_numbers_for_tensorboard(workspace: Path) -> None:
    tiny.change_params(workspace, "starter.trainer", log_every=2)
    assert train.main(["clip"]) == 0
    board = EventAccumulator("runs/tensorboard/train@clip")
    board.Reload()
    history = [json.loads(line) for line in Path("store/models/clip/metrics.jsonl").read_text("utf-8").splitlines()]
    found = [(event.step, float(make_ndarray(event.tensor_proto))) for event in board.Tensors("loss")]
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in history]
    assert {"lr", "items_per_s", "eta_s"} <= set(board.Tags()["tensors"])


def test_the_journal_of_another_process_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, 2, 8, 1)
    journal.open(0)
    journal.add(0, 0.1, {"loss": torch.tensor(2.0)})
    assert journal.validated(1, {"score": 0.5})
    assert not journal.validated(2, {"score": 0.5})
    assert not list(tmp_path.iterdir())


def test_a_methods_own_trainer_settings_go_over_the_presets(workspace: Path) -> None:
    tiny.change_params(workspace, "starter.methods.clip", trainer={"lr": 0.5})
    shared = train.read_settings("ce_clip").trainer
    assert train.read_settings("clip").trainer == dataclasses.replace(shared, lr=0.5)


@pytest.mark.parametrize(
    ("trainer_block", "words"),
    [
        ({"lrr": 1}, r"starter.methods.clip.trainer.lrr: unknown setting. Did you mean `lr`?"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\)"),
        ({"select": "best"}, "select `best` needs validate_every"),
        ({"accumulate": 3}, r"trainer.batch: 8 does not divide into 1 process\(es\) x 3 micro-batch\(es\)"),
    ],
)
def test_settings_that_mean_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], trainer_block: dict[str, object], words: str
) -> None:
    tiny.change_params(workspace, "starter.methods.clip", trainer=trainer_block)
    assert train.main(["clip"]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not Path("store/models/clip").exists()


def test_a_checkpoint_of_another_configuration_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "stage" / "here"
    path = checkpoint.save(folder, 3, "a" * 64, {"value": torch.tensor(1)})
    with pytest.raises(UserError, match=rf"{path}: a checkpoint of another configuration .*aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        checkpoint.latest(folder, "b" * 64)
    assert path.exists()


class Greedy(Clip):
    """Asks for more memory than any machine has."""

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": torch.empty(1 << 56).sum()}


def test_out_of_memory_names_the_setting(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.methods.clip.Clip", Greedy)
    with pytest.raises(UserError, match=r"clip: out of memory with 8 products in 1 micro-batch\(es\); raise "):
        ranks.fit("clip", "train@clip")


class Noisy(Task):
    """Dropout and ragged tokens, to see that a second encoding of a micro-batch repeats the first."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.ones(3))

    def encode(self, batch: dict[str, Tensor], step: int) -> Outputs:  # type: ignore[override]
        kept = torch.nn.functional.dropout(batch["x"] * self.weight, 0.5)
        tokens = kept[:, None].expand(-1, int(batch["length"]), -1) * self.weight
        return {"kept": kept, "tokens": tokens, "ids": torch.arange(len(kept)) + int(batch["length"])}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        assert outputs["tokens"].shape == (5, 4, 3)
        assert outputs["tokens"][:2, 3].abs().sum() == 0
        assert outputs["ids"].tolist() == [3, 4, 4, 5, 6]
        return {"loss": (outputs["kept"].sum() ** 2 + outputs["tokens"].sum()) * self.weight.sum()}


def test_a_micro_batch_is_encoded_again_with_the_same_dropout() -> None:
    pieces = [
        {"x": torch.rand(2, 3, generator=torch.Generator().manual_seed(1)), "length": torch.tensor(3)},
        {"x": torch.rand(3, 3, generator=torch.Generator().manual_seed(2)), "length": torch.tensor(4)},
    ]
    divided, plain = Noisy(), Noisy()
    torch.manual_seed(7)
    backward(divided, pieces, 0)
    after = torch.rand(1)
    torch.manual_seed(7)
    plain.losses(distributed.join([plain.encode(piece, 0) for piece in pieces]), 0)["loss"].backward()
    assert torch.equal(after, torch.rand(1)), "chance goes on as if every micro-batch were encoded once"
    torch.testing.assert_close(divided.weight.grad, plain.weight.grad)


def test_no_mean_over_nothing() -> None:
    assert distributed.mean(torch.tensor(0.0), 0).item() == 0.0
    assert distributed.mean(torch.tensor(6.0), torch.tensor(4)).item() == 1.5


def test_defaults_read_back_strictly() -> None:
    config = TrainerConfig()
    assert strict(TrainerConfig, dataclasses.asdict(config), "here") == config
