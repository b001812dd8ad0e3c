"""Which photos are the same, and how alike two others look, going by what stands before the background.

Catalog photos are mostly white paper, so a difference of whole pictures says little. Here the background is the median
colour of the picture's edge, and the difference is the mean over the cells where either picture shows something else.
Colour counts: two shirts of one cut in red and blue are far apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data.images import in_threads
from data.lookalikes import Looks, lookalikes, looks

PAPER = 10.0  # a cell this close to the background (0-255, largest channel) shows nothing
LEAST = 0.05  # share of cells that a product covers; two pictures that show less do not look like each other
BATCH = 512  # pictures decoded at a time


class Photos:
    """The photos that a catalog shows, small. Keys that `images.parquet` lacks have none.

    Args:
        images: `images.parquet` of a dataset; None knows no photo.
        shown: the image keys of its products.
    """

    def __init__(self, images: Path | None, shown: Iterable[str]) -> None:
        found = _read(images, set(shown)) if images else {}
        self._places = {key: place for place, key in enumerate(found)}
        self._cells = np.stack([look.thumb for look in found.values()] or [np.zeros((16, 12, 3), np.uint8)])
        self._shows = np.stack([_foreground(cells) for cells in self._cells])
        self._same: dict[str, list[str]] = defaultdict(list)
        keys = list(found)
        for one, other in lookalikes(list(found.values())):
            self._same[keys[one]].append(keys[other])
            self._same[keys[other]].append(keys[one])

    def same(self, key: str) -> list[str]:
        """The photos that are perceptual duplicates (data/lookalikes.py) of `key`, itself first."""
        return [key, *self._same.get(key, ())]

    def distances(self, key: str, others: Sequence[str]) -> np.ndarray:
        """float (K,): mean difference (0-255) of the photo `key` to each other; infinite if one is absent or blank."""
        found = np.full(len(others), np.inf)
        known = [n for n, other in enumerate(others) if other in self._places]
        if key not in self._places or not known:
            return found
        own, places = self._places[key], [self._places[others[n]] for n in known]
        shown = self._shows[own] | self._shows[places]
        difference = np.abs(self._cells[places].astype(np.float32) - self._cells[own]).mean(axis=3)
        mean = (difference * shown).sum(axis=(1, 2)) / np.maximum(shown.sum(axis=(1, 2)), 1)
        found[known] = np.where(shown.mean(axis=(1, 2)) < LEAST, np.inf, mean)
        return found


def _read(images: Path, wanted: set[str]) -> dict[str, Looks]:
    found: dict[str, Looks] = {}
    for batch in pq.ParquetFile(images).iter_batches(BATCH, columns=["image_key", "jpeg"]):
        keys = batch.column("image_key").to_pylist()
        held = [(key, jpeg) for key, jpeg in zip(keys, batch.column("jpeg").to_pylist(), strict=True) if key in wanted]
        found |= zip((key for key, _ in held), in_threads(looks, [jpeg for _, jpeg in held]), strict=True)
    return found


def _foreground(cells: np.ndarray) -> np.ndarray:
    """bool (16, 12): the cells that show more than the background."""
    values = cells.astype(np.float32)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    shown: np.ndarray = np.abs(values - np.median(edge, axis=0)).max(axis=2) > PAPER
    return shown
