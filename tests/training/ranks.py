"""Trains methods for a few steps and leaves their weights: the same with one process and with several.

torchrun --nproc-per-node 2 -m tests.training.ranks OUT METHOD...      (in a tiny workspace)
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from training import distributed, train, trainer
from training.encoder import load_encoder
from training.methods import METHODS
from training.task import BASE, Task

STEPS = 4  # an epoch of the tiny workspace
EXACT = {"epochs": 1, "precision": "fp32", "threads": 1, "log_every": 1, "checkpoint_every": 100, "warmup": 1}


def build(name: str, **changes: object) -> tuple[Task, train.Settings]:
    """A method at its start, without dropout: what falls by chance per process would differ."""
    found = train.read_settings(name)
    settings = dataclasses.replace(found, trainer=dataclasses.replace(found.trainer, **{**EXACT, **changes}))  # type: ignore[arg-type]
    trainer.prepare(settings.trainer)
    method = METHODS[name]
    task = method.build(settings.config, load_encoder(BASE) if BASE in method.inputs else None)
    for module in task.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return task, settings


def fit(name: str, label: str, **changes: object) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights and log after an epoch."""
    task, settings = build(name, **changes)
    source = task.source(settings.trainer, label)
    fitted = trainer.fit(task, source, settings.trainer, name=label, binding="b" * 64)
    learnt = {key: value.detach().clone() for key, value in task.named_parameters() if value.requires_grad}
    return learnt, fitted.history


def main(out: Path, names: list[str]) -> None:
    joined = distributed.start()
    for name in names:
        learnt, history = fit(name, f"ranks-{name}")
        if distributed.rank() == 0:
            torch.save({"learnt": learnt, "loss": [line["loss"] for line in history]}, out / f"{name}.pt")
    if joined:
        distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
