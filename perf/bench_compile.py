"""No goal, a choice: torch.compile of both trunks in a CLIP step on this processor."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from perf import clips
from perf.bench import Row, paired, speed_row, workspace
from perf.bench_trainer import BATCH, a_batch
from training.methods.clip import Clip
from training.trainer import make_optimiser


def run(smoke: bool) -> list[Row]:
    with workspace():
        tasks = [Clip(Clip.Config(), clips.ours(clips.SMALL)).train() for _ in range(2)]
        batch = a_batch(tasks[0].encoder, BATCH)
    tasks[0].encoder.image.trunk.compile(dynamic=True)
    tasks[0].encoder.text.trunk.compile(dynamic=True)
    steps = [_step(task, batch) for task in tasks]
    begun = time.perf_counter()
    steps[0]()
    cost = time.perf_counter() - begun
    pairs = paired(*steps, 5 if smoke else 15, warm=3)
    return [speed_row(
        pairs, BATCH, id="", what="clip step, trunks compiled", peer="the same, not compiled", unit="pairs/s",
        check=f"the first step took {cost:.0f} s",
    )]  # fmt: skip


def _step(task: Clip, batch: dict[str, object]) -> Callable[[], None]:
    task.precision, task.rows = torch.bfloat16, BATCH
    optimiser = make_optimiser(task, clips.trainer(batch=BATCH))

    def step() -> None:
        task.training_step(batch, 0)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step
