"""Which products form a batch and what is drawn of them, as pure functions of (seed, epoch): no state to save.

A run that was killed takes up in the middle of an epoch by computing the same order again.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TYPES = ("relation", "attribute", "object", "action")  # order of the negatives of a product [CE-CLIP, data.py]
Integers = npt.NDArray[np.int64]
_ORDER, _DRAWS, _CROPS = 0, 1, 2  # independent random streams of one epoch


def epoch_batches(groups: Sequence[int] | Integers, batch: int, seed: int, epoch: int) -> list[Integers]:
    """Positions of the products of each batch of an epoch: full batches only, each product at most once.

    No batch holds two products of one group (same photo or same title): each would be a false negative of the other.
    A product that meets one of its group is put off to the next batch.
    """
    queue = collections.deque(_stream(seed, epoch, _ORDER).permutation(len(groups)).tolist())
    batches: list[Integers] = []
    while True:
        members: dict[int, int] = {}
        put_off: list[int] = []
        while queue and len(members) < batch:
            position = queue.popleft()
            if groups[position] in members:
                put_off.append(position)
            else:
                members[groups[position]] = position
        if len(members) < batch:
            return batches
        batches.append(np.array(list(members.values())))
        queue.extendleft(reversed(put_off))


def draws(count: int, columns: int, seed: int, epoch: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), (count, columns): what an epoch decides by chance about each product."""
    return _stream(seed, epoch, _DRAWS).random((count, columns))


def crops(count: int, seed: int, epoch: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), (count, 4): area, aspect, left and top of each product's random crop."""
    return _stream(seed, epoch, _CROPS).random((count, 4))


def _stream(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, purpose])
