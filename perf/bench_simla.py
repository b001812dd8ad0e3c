"""P5: a SIMLA step against the published step taken literally, in our own words and on our own modules.

Literally means: pictures and masked pictures in passes of their own, likewise pairs, false pairs, masked captions and
keywords, each with its own keys and values of the picture; captions padded to the batch's longest; logits of words at
every position and of codes at every patch; false pairs drawn row by row; a teacher of new tensors [codezakh/SIMLA,
models/simla/pretrain.py]. The batch is the published one of a device [configs/Pretrain.yaml].
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from perf import clips
from perf.bench import Row, paired, speed_row, workspace
from training import weights
from training.config import EncoderConfig, TextWeights, TowerSpec
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.fused import keywords
from training.fused.fusion import initialise
from training.fused.single_stream import read_patches
from training.methods.simla import Simla, distilled, match
from training.source import Source
from training.task import Batch
from training.towers import padding_bias

GRID, PATCH = (8, 6), 14
VIT = {"width": 384, "layers": 6, "heads": 6, "inner": 1536, "patch": PATCH, "eps": 1e-6, "layer_scale": False,
       "grid": list(GRID)}  # fmt: skip


class Brightness(nn.Module):
    """Codes of patches without a cost, the same for both sides."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, 0, ::PATCH, ::PATCH].flatten(1).long() % self.codes


class Literal(Simla):
    """SIMLA's step without any saving."""

    def before_step(self, step: int, progress: float) -> None:
        self.alpha = self.config.alpha * min(1.0, progress)
        m, means = self.config.momentum, dict(self.teacher.parts.named_buffers())
        for name, module in self.student.items():
            for key, parameter in module.named_parameters():
                mean = means[f"{name}.{key}"]
                mean.data = mean.data * m + parameter.data * (1 - m)

    def _pictures(self, pixels: Tensor, hidden: Tensor | None) -> Any:
        student, teacher = self.encoder.image.trunk, self.teacher.parts["image"].trunk
        nothing = torch.zeros_like(hidden) if hidden is not None else None
        with torch.no_grad():
            taught = teacher.tokens(pixels, nothing), teacher.tokens(pixels, hidden)
        return (student.tokens(pixels, nothing), student.tokens(pixels, hidden)), taught

    def guess_patches(self, parts: Any, v_masked: Tensor, words: Tensor, mask: Tensor, hidden: Tensor) -> Tensor:
        guessed: Tensor = parts["mim"](read_patches(parts, v_masked, words, mask)[:, 1:]).float()
        return guessed[hidden]

    def _teach(self, texts: Outputs, words: Outputs, v: Tensor, v_teacher: Tensor) -> Outputs:
        parts, mask = self.teacher.parts, texts["mask"]
        attention = whole(parts, texts["ids"], mask, v_teacher)[1]
        found = keywords.vote(attention, mask, self.config.votes, self.config.keywords)
        taught = whole(parts, texts["masked"], mask, v_teacher)[0]
        return {"mlm_teacher": taught, "keywords": keywords.words_at(texts["ids"], found)}

    def _fused(self, o: Outputs, s: Tensor, u: Tensor, step: int) -> dict[str, Tensor]:
        ids, mask, v = o["ids"], o["mask"], o["v"]
        pictures, texts = row_by_row(u), row_by_row(s)
        with self.autocast():
            true = whole(self.student, ids, mask, v)[0][:, 0]
            false = whole(
                self.student, torch.cat([ids, ids[texts]]), torch.cat([mask, mask[texts]]), torch.cat([v[pictures], v])
            )[0][:, 0]
            told = whole(self.student, o["masked"], mask, v)[0]
            logits = self.mlm(told, self.encoder.text.trunk.words.weight).float()
            with torch.no_grad():
                words = self.teacher.parts["text"].trunk.words.weight
                taught = self.teacher.parts["mlm"](o["mlm_teacher"], words).float()
        chosen = o["chosen"].bool()
        itm = match(self.itm(torch.cat([true, false]).float())).mean()
        return {"itm": itm, "mlm": distilled(logits[chosen], ids[chosen], taught[chosen], self.alpha).mean()}


def whole(parts: Any, ids: Tensor, mask: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """E_mm(T | I) padded to the batch's longest: tokens (R, L, D), attention of [CLS] (R, h, L)."""
    trunk, fusion = parts["text"].trunk, parts["fusion"]
    x = trunk.embed(trunk.look_up(ids))
    fused = fusion(trunk.layers, x, padding_bias(mask, x.dtype), fusion.project(v))
    return fused.tokens, fused.probabilities[:, :, 0].float()


def row_by_row(logits: Tensor) -> Tensor:
    """For each row another column, drawn one by one."""
    weights = logits.detach().float().softmax(1) + 1e-4
    weights.fill_diagonal_(0)
    return torch.tensor([int(torch.multinomial(row, 1).item()) for row in weights])


def encoder(text_layers: int = 6) -> DualEncoder:
    """A vision transformer of six layers and a BERT of MiniLM's shape, random weights, MiniLM's words."""
    torch.manual_seed(0)
    text, _, tokenizer = weights.text_tower(TextWeights())
    image = TowerSpec(kind="vit", arch="random", shape=VIT, mean=(127.0,) * 3, std=(64.0,) * 3)
    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    text = dataclasses.replace(text, shape={**text.shape, "pool": "cls", "num_hidden_layers": text_layers})
    made = DualEncoder(
        EncoderConfig(image_size=size, embed_dim=256, max_tokens=32, image=image, text=text), tokenizer
    )  # fmt: skip
    made.apply(initialise)
    return made


def run(smoke: bool) -> list[Row]:
    rows, rounds = (16, 3) if smoke else (64, 9)
    config = Simla.Config(queue=rows * 64, mask_patches=19, keywords=3)
    start = encoder()
    tasks = [kind(config, copy.deepcopy(start)).train() for kind in (Simla, Literal)]
    tasks[1].load_state_dict(tasks[0].state_dict())
    tasks[1].teacher.load_state(tasks[0].teacher.state())
    settings = clips.trainer(batch=rows)
    with workspace():
        source = Source(clips.products(1024), start, Random(start.config.image_size), settings, Simla.needs)
        batches = [source.batches(step)[0] for step in range(rounds + 1)]
        source.close()
    found: list[dict[str, float]] = [{}, {}]
    for task in tasks:
        task.visual = Brightness(task.config.codes)
    steps = [training_step(task, rows, batches, found[side]) for side, task in enumerate(tasks)]
    pairs = paired(steps[0], steps[1], rounds)
    kept = ("itc", "mlm", "mim", "psl")  # false pairs are drawn otherwise, so L_itm may differ
    ours, theirs = (sum(parts[name] for name in kept) for parts in found)
    gap = abs(ours - theirs) / theirs
    return [speed_row(
        pairs, rows, id="P5", what=f"SIMLA step, 6 + 6 layers, batch {rows}", peer="published step, literally",
        unit="pairs/s", floor=1.3, check=f"losses but L_itm differ by {gap:.2%}", fair=gap < 0.01,
    )]  # fmt: skip


class Random:
    """Random pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def take(self, positions: Any, chance: Any) -> Tensor:
        return torch.randint(0, 256, (len(positions), 3, *self.size), dtype=torch.uint8)


def training_step(
    task: Any, rows: int, batches: list[Batch], found: dict[str, float]
) -> Callable[[], None]:  # fmt: skip
    """Whole optimiser steps of a fused method, one per call; `found` holds the parts of the last one's loss."""
    task.precision, task.rows, task.seed = torch.bfloat16, rows, 1
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-4, fused=True)
    steps = iter(range(len(batches)))

    def step() -> None:
        number = next(steps)
        task.before_step(number, 1.0)
        parts = task.training_step(batches[number], number)
        parts["loss"].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        task.after_step()
        found.update({name: float(value.detach()) for name, value in parts.items()})

    return step
