"""P1: what the trainer adds to a step, against a bare loop over the same module with the batch in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perf import clips
from perf.bench import Row, paired, workspace
from training.distributed import Outputs
from training.methods.clip import Clip
from training.task import Batch, Tokens
from training.trainer import Run, make_optimiser

BATCH, STEPS = 32, 5  # per round


class InMemory:
    """The same batch at every step."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def starts_epoch(self, step: int) -> int | None:
        return 0 if step == 0 else None

    def progress(self, step: int) -> float:
        return step / self.steps

    def row_ids(self, step: int) -> list[str]:
        return []

    def batches(self, step: int) -> list[Batch]:
        return [self.batch]

    def observe(self, step: int, outputs: Outputs) -> None:
        pass

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        pass

    def close(self) -> None:
        pass


def a_batch(encoder: Any, rows: int) -> Batch:
    """Random pixels and real titles."""
    height, width = encoder.config.image_size
    titles = [pair[0] or "" for pair in clips.products(rows).captions]
    return {
        "image": torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8),
        "caption": Tokens(*encoder.tokenize(titles)),
        "place": torch.arange(rows),
    }


def run(smoke: bool) -> list[Row]:
    rounds = 4 if smoke else 9
    with workspace():
        tasks = [Clip(Clip.Config(), clips.ours(clips.SMALL)) for _ in range(2)]
        config = clips.trainer(batch=BATCH, log_every=STEPS)
        batch = a_batch(tasks[0].encoder, BATCH)
        training = Run(tasks[0], InMemory(batch, STEPS * (rounds + 1)), config, "perf", "0" * 64)
        training.resume()
        counter = iter(range(STEPS * (rounds + 1)))
        bare = tasks[1].train()
        bare.precision, bare.rows = torch.bfloat16, BATCH
        optimiser = make_optimiser(bare, config)
        for group in optimiser.param_groups:
            group["lr"] = config.lr
        last: dict[str, Tensor] = {}

        def ours() -> None:
            for _ in range(STEPS):
                training.step(next(counter))
            last["ours"] = training.watch[-1][1]["loss"]
            training.demand_finite()

        def theirs() -> None:
            for number in range(STEPS):
                loss = bare.training_step(batch, number)["loss"]
                loss.backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            last["bare"] = loss.detach()

        pairs = paired(ours, theirs, rounds)
        gap = abs(float(last["ours"] - last["bare"])) / float(last["bare"])
        rates, (ratio, spread) = pairs.rates(BATCH * STEPS), pairs.overhead()
        return [Row(
            id="P1", what="clip step in the trainer", peer="bare loop of the same module", unit="pairs/s",
            ours=rates[0], theirs=rates[1], ratio=ratio, spread=spread,
            cpu_ratio=1 / (pairs.cpu_speedup() or 1), floor=1.10, at_most=True,
            check=f"losses differ by {gap:.2%}", fair=gap < 0.01,
        )]  # fmt: skip
