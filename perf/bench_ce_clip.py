"""P3: a CE-CLIP step with real captions and negatives, against the same step over padded captions."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from perf import clips
from perf.bench import Row, paired, speed_row, workspace
from training.methods.ce_clip import INVALID, CeClip, split_texts
from training.source import NEGATIVES, Source
from training.task import HARD, Batch


class NoPictures:
    """Random pixels: this bench is about texts."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def take(self, positions: Any, chance: Any) -> Tensor:
        return torch.randint(0, 256, (len(positions), 3, *self.size), dtype=torch.uint8)


def padded_outputs(task: CeClip, model: Any, batch: Batch, pixels: Tensor) -> dict[str, Tensor]:
    """What `task.encode` gives, from open_clip's model and five captions per picture of 77 tokens each."""
    captions, (negatives, valid) = batch["caption"], batch["negatives"]
    invalid = task.encoder.tokenize([INVALID])[0]
    count = len(captions.ids)
    ids = torch.zeros(5 * count, 77, dtype=torch.int64)
    ids[:count, : captions.ids.shape[1]] = captions.ids
    places = count + valid.flatten().nonzero().squeeze(1)
    ids[count:, : invalid.shape[1]] = invalid
    ids[places] = F.pad(negatives.ids, (0, 77 - negatives.ids.shape[1]))
    with torch.autocast("cpu", torch.bfloat16):
        image, texts = model.encode_image(pixels), model.encode_text(ids)
    text, negative = split_texts(F.normalize(texts.float(), dim=-1), count)
    return {"image": F.normalize(image.float(), dim=-1), "text": text, "negative": negative, "valid": valid}


def run(smoke: bool) -> list[Row]:
    config, name, rows, rounds = (
        (clips.SMALL, "19M CLIP", 32, 4) if smoke else (clips.B32, "ViT-B/32", 8, 5)
    )  # fmt: skip
    with workspace():
        tasks = [CeClip(CeClip.Config(), clips.ours(config)).train() for _ in range(2)]
        settings = clips.trainer(batch=rows, title_share=0.5)
        encoder = tasks[0].encoder
        source = Source(
            clips.products(1024), encoder, NoPictures(encoder.config.image_size), settings, CeClip.needs,
            pd.read_parquet(HARD / NEGATIVES),
        )  # fmt: skip
        batches = [source.batches(step)[0] for step in range(rounds + 1)]
        source.close()
    tasks[0].precision = torch.bfloat16
    model = clips.theirs(config, encoder)
    mean, std = (getattr(encoder.image.trunk, key) for key in ("mean", "std"))
    floats = [(batch["image"].float() - mean) / std for batch in batches]
    optimisers = [clips.adamw(module, settings, fused=True) for module in (tasks[0], model)]
    steps, losses = [iter(range(99)), iter(range(99))], [0.0, 0.0]

    def ours() -> None:
        step = next(steps[0])
        loss = tasks[0].training_step(batches[step], step)["loss"]
        _update(loss, optimisers[0], losses, 0)

    def theirs() -> None:
        step = next(steps[1])
        outputs = padded_outputs(tasks[1], model, batches[step], floats[step])
        _update(tasks[1].losses(outputs, step)["loss"], optimisers[1], losses, 1)

    pairs = paired(ours, theirs, rounds)
    gap = abs(losses[0] - losses[1]) / losses[1]
    return [speed_row(
        pairs, rows, id="P3", what=f"CE-CLIP step, {name}, batch {rows}", peer="padded autocast step, 5 captions",
        unit="pairs/s", floor=2.5, check=f"losses differ by {gap:.2%}", fair=gap < 0.01,
    )]  # fmt: skip


def _update(loss: Tensor, optimiser: torch.optim.Optimizer, losses: list[float], side: int) -> None:
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    losses[side] = float(loss.detach())
