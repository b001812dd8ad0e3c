"""The loop: it learns, says so, stops on bad numbers and signals, and refuses settings that mean nothing."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.params import UserError, strict
from tests.training import tiny
from training import checkpoint, train, trainer
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import load_encoder
from training.methods.clip import Clip
from training.schedule import learning_rate
from training.task import Task, Tokens

BASE = Path("store/models/base")


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def clip() -> Clip:
    task = Clip.build(Clip.Config(), load_encoder(BASE))
    assert isinstance(task, Clip)
    return task


def fit(task: Task, **settings: object) -> list[dict[str, float]]:
    config = TrainerConfig(**{**tiny.PARAMS["starter"]["trainer"], **settings})  # type: ignore[index,arg-type,dict-item]
    return trainer.fit(task, task.source(config, "unit"), config, name="unit", binding="b" * 64).history


@pytest.mark.parametrize("method", ["clip", "ce_clip"])
def test_a_method_trains_and_leaves_a_whole_model_folder(workspace: Path, method: str) -> None:
    tiny.change_params(workspace, "starter.trainer", epochs=6, lr=1e-3, head_lr=1e-2)
    assert train.main([method]) == 0
    out = Path("store/models") / method
    assert {p.name for p in out.iterdir()} == {
        "model.json", "weights.safetensors", "tokenizer.json", "metrics.jsonl", "loss.png", "record.json",
    }  # fmt: skip
    history = lines(out / "metrics.jsonl")
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert [line["step"] for line in history] == list(range(2, 25, 2))
    assert not any({"items_per_s", "eta_s"} & line.keys() for line in history)
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["summary"]["endpoints"] == ["search"]
    negatives = set() if method == "clip" else {"store/negatives"}
    assert {i["path"] for i in record["inputs"]} == {"store/dataset", "store/models/base"} | negatives
    rates = lines(Path(f"runs/train/train@{method}/metrics.jsonl"))
    assert all(line["items_per_s"] > 0 for line in rates)
    assert not list(Path("runs/train").glob("*/*/step-*.pt"))


def test_the_same_run_twice_gives_the_same_bytes(workspace: Path) -> None:
    assert train.main(["ce_clip"]) == 0
    first = {p.name: p.read_bytes() for p in Path("store/models/ce_clip").iterdir()}
    assert train.main(["ce_clip", "--force"]) == 0
    assert first == {p.name: p.read_bytes() for p in Path("store/models/ce_clip").iterdir()}


def test_nothing_to_do_when_nothing_changed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["clip"]) == 0
    capsys.readouterr()
    assert train.main(["clip"]) == 0
    assert "up to date" in capsys.readouterr().err


def test_frozen_parameters_keep_their_values(workspace: Path) -> None:
    before = {n: p.clone() for n, p in load_encoder(BASE).named_parameters()}
    task = clip()
    fit(task)
    for name, parameter in task.encoder.named_parameters():
        frozen = name.startswith(("image.trunk", "text.trunk.words"))
        assert torch.equal(before[name], parameter.detach()) == frozen, name


def test_pictures_are_cropped_and_learnt_from_when_the_trunk_is_not_frozen(workspace: Path) -> None:
    before = load_encoder(BASE).image.trunk.net.conv_stem.weight.detach().clone()
    task = clip()
    history = fit(task, frozen=(), crop=0.8, epochs=1)
    assert math.isfinite(history[-1]["loss"])
    assert not torch.equal(before, task.encoder.image.trunk.net.conv_stem.weight.detach())


def test_unknown_frozen_prefix(workspace: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.frozen: no parameter is named `text\.trunks"):
        fit(clip(), frozen=("text.trunks",))


def test_batch_larger_than_the_catalog(workspace: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.batch: 64 is more than the 32 distinct training products"):
        fit(clip(), batch=64)


def test_unknown_method(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["ceclip"]) == 2
    assert "method `ceclip` is unknown; choose one of: clip, negclip, ce_clip," in capsys.readouterr().err


def test_unknown_setting_of_a_method(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.change_params(workspace, "starter.methods.ce_clip", alhpa=0.3)
    assert train.main(["ce_clip"]) == 2
    assert "starter.methods.ce_clip.alhpa: unknown setting. Did you mean `alpha`?" in capsys.readouterr().err
    assert not Path("store/models/ce_clip").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch": 1}, "batch must be at least 2"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"crop": 0.0}, "crop in"),
        ({"precision": "fp16"}, "'fp16' is not one of 'fp32', 'bf16'"),
    ],
)
def test_settings_out_of_range(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        strict(TrainerConfig, values, "params.yaml: starter.trainer")


def test_schedule_warms_up_and_ends_near_zero() -> None:
    config = TrainerConfig(lr=2.0, warmup=4)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[12] == pytest.approx(1.0)  # half of the cosine
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.05


def test_no_decay_for_vectors_and_head_rate_for_heads(workspace: Path) -> None:
    task = clip()
    trainer.freeze(task, ())
    optimiser = trainer.make_optimiser(task, TrainerConfig(lr=1e-4, head_lr=1e-3))
    names = {id(p): n for n, p in task.named_parameters()}
    seen = set()
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            assert (group["weight_decay"] > 0) == (parameter.ndim >= 2), name
            assert group["factor"] == pytest.approx(10.0 if ".head." in name else 1.0), name
    assert seen == set(names.values())


def test_logit_scale_stays_within_its_bounds(workspace: Path) -> None:
    task = clip()
    for value, expected in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        task.encoder.logit_scale.data.fill_(value)
        task.after_step()
        assert task.encoder.logit_scale.item() == pytest.approx(expected)


class Spoilt(Clip):
    """The control, with something done at one step."""

    at = 5
    deed: Callable[[dict[str, Tensor]], None]

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        parts = super().losses(outputs, step)
        if step == self.at:
            self.deed(parts)
        return parts


def spoilt(deed: Callable[[dict[str, Tensor]], None]) -> Spoilt:
    task = Spoilt.build(Clip.Config(), load_encoder(BASE))
    task.deed = deed  # type: ignore[assignment,method-assign]
    assert isinstance(task, Spoilt)
    return task


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_products(workspace: Path) -> None:
    def poison(parts: dict[str, Tensor]) -> None:
        parts["loss"] = parts["loss"] * float("nan")

    with pytest.raises(UserError, match=r"the loss of step 5 is not a finite number \(loss nan\)"):
        fit(spoilt(poison))
    saved = json.loads(Path("runs/train/unit/bad_batch.json").read_text(encoding="utf-8"))
    task = clip()
    config = TrainerConfig(**tiny.PARAMS["starter"]["trainer"])  # type: ignore[index,arg-type]
    assert saved["row_ids"] == task.source(config, "unit").row_ids(5)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_the_next_run_goes_on(workspace: Path, sign: signal.Signals) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    whole = clip()
    expected = fit(whole)
    checkpoint.clear(Path("runs/train/unit"))
    with pytest.raises(UserError, match=rf"stopped by {sign.name} after step 6 of 12; the checkpoint is saved"):
        fit(spoilt(lambda parts: os.kill(os.getpid(), sign)))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = clip()
    assert fit(resumed) == expected
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_texts_are_encoded_in_length_buckets_in_their_order(workspace: Path) -> None:
    task = clip()
    words = ["red", "red shirts for men , brand 1 2 3", "blue bags", "green", "yellow watches for women"]
    groups = [Tokens(*task.encoder.tokenize(words[:2])), Tokens(*task.encoder.tokenize(words[2:]))]
    with torch.inference_mode():
        together = task.texts(*groups)
        alone = torch.cat([task.encoder.encode_text(*task.encoder.tokenize([w])) for w in words])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
