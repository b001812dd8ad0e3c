"""Which tokens and patches are hidden: chance comes in as numbers, so every mask can be drawn again.

Batch axis B, tokens L, N places to choose from.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import Tensor

UNLABELLED = -100  # label of a position whose token need not be told
ATTEMPTS = 10  # tries to place one block [BEiT masking_generator.py]
ASPECT = (0.3, 1 / 0.3)  # least and greatest height : width of a block [BEiT masking_generator.py]


def replace_tokens(ids: Tensor, chosen: Tensor, chance: Tensor, mask_id: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """BERT's corruption of the chosen tokens: 80 % become [MASK], 10 % a uniformly random token, 10 % stay.

    Args:
        ids: int64 (B, L); chosen: bool (B, L).
        chance: uniform numbers (B, L, 2): what happens to a token, and which random one it becomes.

    Returns (ids with the replacements, labels: the token where chosen, `UNLABELLED` elsewhere).
    """
    action, which = chance.unbind(-1)
    other = (which * vocabulary).long().clamp_max(vocabulary - 1)
    replaced = torch.where(action < 0.8, mask_id, torch.where(action < 0.9, other, ids))
    return torch.where(chosen, replaced, ids), torch.where(chosen, ids, UNLABELLED)


def bert_mask(
    ids: Tensor, maskable: Tensor, chance: Tensor, probability: float, mask_id: int, vocabulary: int
) -> tuple[Tensor, Tensor]:
    """BERT's random masking: every maskable token is chosen with `probability`. `chance` is uniform (B, L, 3)."""
    chosen = (chance[..., 0] < probability) & maskable
    return replace_tokens(ids, chosen, chance[..., 1:], mask_id, vocabulary)


def block_mask(rows: int, columns: int, count: int, least: int, chance: random.Random) -> Tensor:
    """BEiT's mask of a picture: bool (rows * columns,), rectangles of at least `least` patches, at most `count` in all.

    A rectangle that fits the rest to be hidden is sought in `ATTEMPTS` tries; the first failure ends the mask, so it
    often holds a few patches less than `count` [BEiT masking_generator.py].
    """
    mask = np.zeros((rows, columns), bool)
    hidden = 0
    while hidden < count:
        new = _place_block(mask, count - hidden, least, chance)
        if not new:
            break
        hidden += new
    return torch.from_numpy(mask.ravel())


def _place_block(mask: np.ndarray, most: int, least: int, chance: random.Random) -> int:
    """Hide one more rectangle with 1 to `most` patches that were not hidden; how many these were, 0 if none was found.

    With less than `least` left to hide, the interval of the area is the reversed one, as in the reference.
    """
    rows, columns = mask.shape
    low, high = (math.log(aspect) for aspect in ASPECT)
    for _ in range(ATTEMPTS):
        area, aspect = chance.uniform(least, most), math.exp(chance.uniform(low, high))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, left = chance.randint(0, rows - height), chance.randint(0, columns - width)
        block = mask[top : top + height, left : left + width]
        new = block.size - int(block.sum())
        if 0 < new <= most:
            block[:] = True
            return new
    return 0


def gumbel_top_k(scores: Tensor, counts: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """`counts` places per row drawn without replacement, in proportion to scores^(1/T): bool (B, N).

    The largest of log(score) + T · Gumbel noise: T → 0 takes the best, T = 1 samples the scores, T → ∞ ignores them.

    Args:
        scores: float (B, N), >= 0; a place of score 0 is never chosen.
        counts: int64 (B,); a row with fewer places of positive score gives these.
        chance: uniform numbers (B, N) in [0, 1).
    """
    tiny = torch.finfo(torch.float32).tiny
    noise = -torch.log(-torch.log(chance.float().clamp(tiny, 1 - 2**-24)))
    keys = torch.where(scores > 0, scores.float().clamp_min(tiny).log() + temperature * noise, -math.inf)
    rank = keys.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < counts[:, None]) & (scores > 0)
