"""Grounding of a trained fused method: it goes on training on pictures and the expressions about them, and then points.

As ALBEF and SIMLA fine-tune for RefCOCO+ (arXiv 2203.14395 §3.5): contrast and matching alone, as for retrieval, and no
box is seen. SyncMask has no setting for that; it goes on with all its losses, in batches drawn at random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data import stage
from data.params import UserError
from training.benchmarks import refcoco
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.fused import tuning
from training.fused.heads.examples import Examples, ExampleSource
from training.fused.heads.stack import regrid
from training.fused.momentum import Teacher
from training.official.contract import Picture
from training.official.exam import ModelExam
from training.sampling import Integers, epoch_batches
from training.task import Batch, Task

CONTRAST_AND_MATCHING = {"levels": ("itm",)}  # of SIMLA's settings; contrast is always on
AT_RANDOM = {"batches": "random"}  # of SyncMask's: what was grouped is the catalog's


class Pairs(ExampleSource):
    """Batches of pictures and texts, in none of which a picture is shown twice: its other text would be no negative."""

    def __init__(
        self, pictures: Sequence[Picture], texts: Sequence[str], encoder: DualEncoder, config: TrainerConfig, root: Path
    ) -> None:
        _, number = np.unique([picture.path for picture in pictures], return_inverse=True)
        names = [f"{picture.path} {text}" for picture, text in zip(pictures, texts, strict=True)]
        super().__init__(Examples(names, [(p,) for p in pictures], list(texts), number), encoder, config, root)
        self.plan = [
            (epoch, rows)
            for epoch in range(config.epochs)
            for rows in epoch_batches(number, config.batch, config.seed, epoch)
        ]
        if not self.plan:
            raise UserError(f"trainer.batch: {config.batch} is more than the {number.max() + 1} pictures; lower it.")

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        made = super()._make(step, positions, places)
        return {
            "place": made["place"], "image": made["image"][:, 0], "caption": made["caption"], "product": made["label"],
            "text": torch.from_numpy(self.places[positions]), "index": torch.from_numpy(positions),
        }  # fmt: skip


def again(method: Task, config: TrainerConfig, grid: tuple[int, int] | None, max_tokens: int) -> Task:
    """The trained method at the start of another training: for pictures of another size, with a teacher equal to it and
    a queue that the batch divides. Raises `UserError` if it is no fused method."""
    if not hasattr(method, "fusion") or not hasattr(method, "itm"):
        raise UserError(f"{tuning.name_of(method)}: fuses no picture with its text; fine-tune simla or syncmask.")
    encoder, known = method.encoder, {field.name for field in dataclasses.fields(method.config)}
    regrid(encoder, grid or encoder.image.trunk.grid, max_tokens)
    changes: dict[str, Any] = CONTRAST_AND_MATCHING if "levels" in known else AT_RANDOM
    queue = max(1, method.config.queue // config.batch) * config.batch
    made = type(method)(dataclasses.replace(method.config, queue=queue, **changes), encoder)
    made.load_state_dict(method.own_state(), strict=False)
    student: Any = getattr(made, "student", None)
    if student is None:
        begin: Any = made.begin
        begin()
    else:
        made.teacher = Teacher(student)
    return made.train()


def tune(run: stage.Run, settings: tuning.Settings, model: Path, root: Path, binding: str) -> None:
    """Go on training the model of a folder, save it into `run.out` and score it (`training.finetune`)."""
    from training.methods import load_task

    how, folder = settings.tuning, tuning.installed(refcoco.BENCHMARK, root, refcoco.TRAINING)
    torch.manual_seed(how.trainer.seed)
    task = again(load_task(model), how.trainer, how.grid, how.max_tokens)
    pictures, texts = refcoco.training_pairs(folder)
    tuning.fit(run, task, Pairs(pictures, texts, task.encoder, how.trainer, root), settings, binding)
    tuning.score(run, refcoco.BENCHMARK, ModelExam(run.out, root), root)
