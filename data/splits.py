"""Splits that leak nothing and stay put while the catalog grows.

What must not be seen from two sides is a *leak key*: a product's id, its title, the family that its title names
(data/families.py), its picture, and every earlier picture that looks the same (data/lookalikes.py). A key belongs for
good to the split that it was first placed in, so a product never changes its split: what was an exam question is never
trained on, and what a champion was trained on never becomes a question.

Drops are placed one after another in the order of landing, each knowing only those before it: what a later drop holds
cannot matter. Of a drop's rows, first those that carry a known key follow it, and take their other keys along. A row
whose keys belong to different splits (a photo that was in train under a title that is in test) fits nowhere and is
*held back*: a new product is left out, of a known one the earlier row stays. What is left are families that nothing
links to the past; each stands at the fixed position in [0, 1) of the smallest split key among its rows: below
1 - val - test is train, above that val, and the top is test. One draw for each family keeps the expected shares true,
however large it is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SALT = "fittingroom split 1"  # changing it would move train products into test: never change it


class Splitter:
    """The split of every leak key placed so far. Feed it the drops in the order of landing."""

    def __init__(self, *, val_share: float, test_share: float) -> None:
        """val_share, test_share: the expected shares of the families."""
        self._edges = np.array([1.0 - val_share - test_share, 1.0 - test_share])
        self._owner: dict[str, Split] = {}

    def place(self, split_keys: Sequence[str], keys: Sequence[Sequence[str]]) -> list[Split | None]:
        """Place one drop.

        Args:
            split_keys: of N rows what their position depends on (see `split_key`).
            keys: all leak keys of each row, the product's id among them.

        Returns:
            N splits, None for rows that are held back.
        """
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for row, held in enumerate(keys):
            for key in held:
                rows_of[key].append(row)
        placed: dict[int, Split | None] = {}
        known = [row for row, held in enumerate(keys) if any(key in self._owner for key in held)]
        self._follow(known, keys, rows_of, placed)
        for row in range(len(keys)):
            if row not in placed:
                members = list(_linked(row, keys, rows_of, placed))
                split = self._draw(min(split_keys[member] for member in members))
                for member in members:
                    placed[member] = split
                    self._owner.update(dict.fromkeys(keys[member], split))
        return [placed[row] for row in range(len(keys))]

    def conflict(self, keys: Sequence[str]) -> list[str]:
        """Why a row was held back: its known keys with their splits, sorted."""
        return sorted(f"{key} is in {self._owner[key]}" for key in keys if key in self._owner)

    def _follow(self, known: Sequence[int], keys: Sequence[Sequence[str]], rows_of: dict[str, list[int]],
                placed: dict[int, Split | None]) -> None:  # fmt: skip
        """Rows with known keys go where these are; their new keys become known, which may reach further rows."""
        waiting = deque(known)
        while waiting:
            row = waiting.popleft()
            if row in placed:
                continue
            splits = {self._owner[key] for key in keys[row] if key in self._owner}
            if len(splits) > 1:
                placed[row] = None
                continue
            placed[row] = split = splits.pop()
            for key in keys[row]:
                if key not in self._owner:
                    self._owner[key] = split
                    waiting.extend(rows_of[key])

    def _draw(self, key: str) -> Split:
        return SPLITS[int(np.searchsorted(self._edges, position(key), side="right"))]


def _linked(first: int, keys: Sequence[Sequence[str]], rows_of: dict[str, list[int]],
            placed: dict[int, Split | None]) -> Iterator[int]:  # fmt: skip
    """The rows not yet placed that share keys with `first`, directly or through others of them."""
    seen, seen_keys, waiting = {first}, set[str](), deque([first])
    while waiting:
        row = waiting.popleft()
        yield row
        for key in keys[row]:
            if key not in seen_keys:
                seen_keys.add(key)
                fresh = [other for other in rows_of[key] if other not in seen and other not in placed]
                seen.update(fresh)
                waiting.extend(fresh)


def components(keys: Sequence[Sequence[str]]) -> np.ndarray:
    """Connected components of rows that share a key.

    Args:
        keys: the keys of N rows.

    Returns:
        int64 (N,): component numbers 0, 1, ... in order of first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys)
    rows: list[int] = []
    nodes: list[int] = []
    known: dict[str, int] = {}
    for row, held in enumerate(keys):
        for key in held:
            rows.append(row)
            nodes.append(count + known.setdefault(key, len(known)))
    size = count + len(known)
    links = coo_array((np.ones(len(rows), dtype=np.int8), (rows, nodes)), shape=(size, size))
    labels = connected_components(links, directed=False)[1][:count]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def group_rows(*columns: Sequence[str | None]) -> np.ndarray:
    """Connected components (as above) of rows with an equal value in any of the key columns; None links nothing."""
    return components(
        [[f"{place} {key}" for place, key in enumerate(row) if key is not None] for row in zip(*columns, strict=True)]
    )


def position(key: str) -> float:
    """The fixed place of a key in [0, 1), uniform over keys."""
    digest = hashlib.sha256(f"{_SALT}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_key(title: str | None, image_key: str) -> str:
    """What a row is placed by: its title key, or its picture where it has no title."""
    return f"title {title}" if title is not None else f"image {image_key}"


def share_spread(families: np.ndarray, share: float) -> float:
    """Standard deviation of a split's share of rows when every family falls into it with probability `share`."""
    sizes = np.bincount(families).astype(np.float64)
    return float(np.sqrt(share * (1.0 - share) * (sizes**2).sum()) / max(len(families), 1))
