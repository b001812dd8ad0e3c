"""What training makes of the masks (specification, section 11, 5): words that the picture shows are preferred."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training import sync_tiny
from training.fused.sync_masks import pool_pieces, word_scores
from training.methods.syncmask import SyncMask
from training.task import Batch

KINDS, ROWS, STEPS, SEEDS, HELD_OUT = 8, 16, 350, 3, 128
RATE = 2e-3
COLOURS = np.random.default_rng(1).permutation(
    [[r, g, b] for r in (20, 230) for g in (20, 230) for b in (20, 230)]
)  # fmt: skip


def pairs(made: SyncMask, count: int, seed: int) -> tuple[Batch, Tensor]:
    """Pictures with two attributes on four patches each, captions with these and a third, and which words are shown."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(110, 140, (count, 4, 4, 3)).astype(np.uint8)
    texts, shown = [], []
    for row in range(count):
        kinds = draw.permutation(KINDS)[:3]
        cells = draw.permutation(16)[:8]
        for place, cell in enumerate(cells):
            pixels[row, cell // 4, cell % 4] = COLOURS[kinds[place // 4]]
        order = draw.permutation(3)
        texts.append(" ".join(f"w{kinds[i]}" for i in order))
        shown.append(order < 2)
    wide = np.repeat(np.repeat(pixels, 8, 1), 8, 2).transpose(0, 3, 1, 2).copy()
    return sync_tiny.batch(made, texts, torch.from_numpy(wide)), torch.tensor(np.array(shown))


def trained(seed: int) -> SyncMask:
    """End to end, all four losses, from random weights."""
    made = sync_tiny.task(seed=seed, rows=ROWS, queue=64, momentum=0.9, words_masked=0.34)
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=RATE, weight_decay=0.01)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50)
        made.before_step(step, 2 * step / STEPS)
        made.training_step(pairs(made, ROWS, 10_000 * seed + step)[0], step)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        made.after_step()
    return made


def auc(made: SyncMask, shuffled: bool) -> float:
    """Chance that a shown word scores higher than the word of its caption that is not shown, on unseen pairs."""
    batch, shown = pairs(made, HELD_OUT, 999)
    if shuffled:
        batch = sync_tiny.clone(batch, image=batch["image"].roll(1, 0))
    maps = made._teach(batch, None, 0).maps
    a_w = word_scores("bisoftmax", maps, maps.looks[:, 0], maps.looks[:, 0] > 0)
    scores = pool_pieces(a_w, made.words.words(batch["caption"].ids, maps.content), maps.content)[:, :3]
    hidden = scores[~shown][:, None]
    seen = scores[shown].view(HELD_OUT, 2)
    return float(((seen > hidden).float() + (seen == hidden).float() / 2).mean())


@pytest.mark.slow
def test_trained_masks_prefer_words_that_the_picture_shows() -> None:
    found = np.array([[auc(made, False), auc(made, True)] for made in map(trained, range(SEEDS))])
    mean, error = found.mean(0), found.std(0, ddof=1) / SEEDS**0.5
    assert mean[0] - 2 * error[0] > 0.5, found
    assert abs(mean[1] - 0.5) < 0.1, found
    assert mean[0] > mean[1] + 0.05, found
