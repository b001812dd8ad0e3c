"""P5: a SyncMask step against the same step taken literally, in our own words and on our own modules.

There is no published code. Literally means, as ALBEF's family is written: true pairs, false pictures and false texts in
fused passes of their own, each with its own keys and values of the picture; every layer computes every position, though
the last is read at [CLS] or at masked places only; word logits at every position; texts padded to the batch's longest;
a teacher of new tensors [salesforce/ALBEF, models/model_pretrain.py]. The batch is GRIT-VLP's of a device.
"""

from __future__ import annotations

import copy
import unittest.mock
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perf import clips
from perf.bench import Row, paired, speed_row, workspace
from perf.bench_simla import Random, encoder, training_step
from training.fused import grouped_source, multimodal
from training.fused.multimodal import Multimodal
from training.fused.pretrained import Towers
from training.methods import syncmask
from training.methods.syncmask import SyncMask
from training.task import Batch
from training.towers import padding_bias

LOWER = 3  # BERT layers below the fusion


class Literal(SyncMask):
    """SyncMask's step without any saving."""

    def before_step(self, step: int, progress: float) -> None:
        m, means = self.config.momentum, dict(self.teacher.parts.named_buffers())
        for name, module in self.teacher._students[0].items():
            for key, parameter in module.named_parameters():
                mean = means[f"{name}.{key}"]
                mean.data = mean.data * m + parameter.data * (1 - m)
        self.alpha, self.p_rand = self.config.alpha, self.config.random_share

    def losses(self, outputs: Any, step: int) -> dict[str, Tensor]:
        texts, images = self._negatives(outputs, step)
        w, mask, v = outputs["words"], outputs["mask"], outputs["patches"]
        with self.autocast():
            fused = [
                self.itm(whole(self.fusion, w[t], mask[t], v[p])[:, 0]).float()
                for t, p in ((slice(None), slice(None)), (slice(None), images.index), (texts.index, slice(None)))
            ]
        counts = torch.cat([torch.ones_like(texts.valid), images.valid, texts.valid])
        labels = (torch.arange(3 * len(w)) < len(w)).long()
        itm = (F.cross_entropy(torch.cat(fused), labels, reduction="none") * counts).sum() / counts.sum()
        mlm = outputs["mlm"].sum() / outputs["mlm_count"].sum().clamp_min(1)
        parts = {**self._itc(outputs), "itm": itm, "mlm": mlm, "mim": outputs["mim"].mean()}
        return {"loss": parts["itc"] + itm + mlm + parts["mim"], **parts}

    def _mim(self, w: Tensor, chosen: Tensor, batch: Batch, taught: Tensor) -> Tensor:
        with self.autocast():
            masked = self.encoder.image.trunk.tokens(batch["image"], chosen)
            predicted = whole(self.mim.blocks, masked, None, w, padding_bias(batch["caption"].mask, w.dtype))
            predicted = self.mim.out(predicted[:, 1:])[chosen]
        target = syncmask.normalised_features(taught[:, 1:])[chosen]
        return F.smooth_l1_loss(predicted.float(), target, reduction="none").mean(-1).view(len(chosen), -1).mean(1)


def whole(
    blocks: Multimodal, x: Tensor, mask: Tensor | None, source: Tensor, source_bias: Tensor | None = None
) -> Tensor:
    """Every position of x (B, L, W) after layers that read `source`, with keys and values of its own."""
    bias = padding_bias(mask, x.dtype) if mask is not None else 0.0
    return blocks(x, bias, blocks.project(source), source_bias)[0]


def run(smoke: bool) -> list[Row]:
    rows, rounds = (16, 3) if smoke else (128, 6)
    config = SyncMask.Config(
        towers=Towers(text_layers=2 * LOWER), queue=rows * 64, fusion_layer=LOWER, batches="random", mim_layers=2
    )
    start = encoder(LOWER)
    tasks = [kind(config, copy.deepcopy(start)).train() for kind in (SyncMask, Literal)]
    tasks[1].load_state_dict(tasks[0].state_dict())
    for task in tasks:
        torch.manual_seed(0)
        task.begin()
    settings = clips.trainer(batch=rows)
    with workspace():
        source = grouped_source.GroupedSource(
            clips.products(1024), start, Random(start.config.image_size), settings, SyncMask.needs
        )
        source.group(None)
        batches = [source.batches(step)[0] for step in range(rounds + 1)]
        source.close()
    found: list[dict[str, float]] = [{}, {}]
    steps = [training_step(task, rows, batches, found[side]) for side, task in enumerate(tasks)]
    steps[1] = literally(steps[1])
    pairs = paired(steps[0], steps[1], rounds)
    ours, theirs = (parts["loss"] for parts in found)
    gap = abs(ours - theirs) / theirs
    return [speed_row(
        pairs, rows, id="P5", what=f"SyncMask step, 6 + 3 + 3 + 2 layers, batch {rows}", unit="pairs/s",
        peer="the same step, literally", floor=1.3, check=f"losses differ by {gap:.2%}", fair=gap < 0.01,
    )]  # fmt: skip


def everywhere(
    text: Any, fusion: Multimodal, head: Any, v: Tensor, words: Tensor, mask: Tensor, chosen: Tensor
) -> Tensor:  # fmt: skip
    """Word logits at every position, of which the chosen are taken."""
    return head(whole(fusion, text.contextual(words, mask), mask, v), text.words.weight).float()[chosen]


def literally(step: Callable[[], None]) -> Callable[[], None]:
    """The step with all texts at once, as long as the longest, and word logits at every position."""

    def run() -> None:
        with (
            unittest.mock.patch.object(multimodal, "BUCKETS", 1),
            unittest.mock.patch.object(syncmask, "word_logits", everywhere),
        ):
            step()

    return run
