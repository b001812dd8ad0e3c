"""Every `paper` preset, as params.yaml has it, builds at full size and takes one step; the weights are random."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from data.params import read_yaml
from training import base, steps, train, trainer
from training.config import ClipWeights
from training.methods import METHODS
from training.task import BASE

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
BATCH = 2


@pytest.fixture
def paper(workspace: Path) -> dict[str, object]:
    """The repository's `paper` block in a tiny workspace, without weights that would have to be downloaded."""
    params = read_yaml(PARAMS.read_text(encoding="utf-8"))
    params["preset"] = "paper"
    for name in ("syncmask", "simla"):
        params["paper"]["methods"][name].setdefault("towers", {}).update(image="random", text="random")
    params["paper"]["methods"]["simla"]["visual"] = "random"
    params["paper"]["trainer"]["threads"] = 2
    (workspace / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return params["paper"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", METHODS)
def test_one_step_at_full_size(paper: dict[str, object], name: str) -> None:
    method, settings = METHODS[name], train.read_settings(name)
    settings = dataclasses.replace(settings, trainer=dataclasses.replace(settings.trainer, batch=BATCH, accumulate=1))
    start = base.clip_encoder(ClipWeights(weights="")) if BASE in method.inputs else None
    if start is not None:
        assert start.config.embed_dim == 512
        assert start.config.image.arch == paper["base"]["clip"]["model"]  # type: ignore[index]
    task = method.build(settings.config, start)
    source = task.source(settings.trainer, "paper")
    run = trainer.Run(task, source, settings.trainer, "paper", "b" * 64)
    task.on_epoch(0)
    task.before_step(0, 0.0)
    parts, _ = steps.backward(task, [trainer.to_device(batch, run.device) for batch in source.batches(0)], 0)
    source.close()
    run.optimiser.step()
    task.after_step()
    assert all(torch.isfinite(value) for value in parts.values())
    learning = [p for p in task.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    assert all(bool(torch.isfinite(p).all()) for p in learning)
