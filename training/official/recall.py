"""What the retrieval benchmarks share: recall among the first K from ranks, and ranks by the ALBEF family's rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.official.scoring import table
from training.ranking import BLOCK, TIE

AT = (1, 5, 10)
Vectors = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def recalls(
    benchmark: str, name: str, items: pa.Table, rank: Integers, suffix: str = "", slices: Sequence[str] | None = None
) -> list[pa.Table]:
    """Outcomes of `NAME@K` for each K of AT, by the rank (N,) of each item's best right candidate; detail: the rank."""
    return [table(benchmark, f"{name}@{k}{suffix}", items, rank <= k, rank, slices) for k in AT]


def mean_of(found: dict[str, float], names: Sequence[str], suffix: str = "") -> float:
    """The plain mean of `NAME@K` over the names and all K: the figure that papers print behind a row of recalls."""
    return float(np.mean([found[f"{name}@{k}{suffix}"] for name in names for k in AT]))


def ranks_later_first(queries: Vectors, candidates: Vectors, pairs: Integers) -> Integers:
    """Rank (Q,) of each query's best right candidate where, of equal scores, the later candidate comes first.

    That is the order of `argsort(scores)[::-1]` in the scorers of the ALBEF family. Scores within TIE are equal.

    Args:
        queries, candidates: unit vectors (Q, D) and (C, D).
        pairs: (P, 2) right (query, candidate) index pairs; every query has at least one.
    """
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    found = np.empty(len(queries), np.int64)
    place = np.arange(len(candidates))
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ candidates.T
        first, last = np.searchsorted(pairs[:, 0], [start, start + len(scores)])
        row, right = pairs[first:last, 0] - start, pairs[first:last, 1]
        own = scores[row, right]
        best = np.full(len(scores), -np.inf, np.float32)
        np.maximum.at(best, row, own)
        latest = np.full(len(scores), -1)
        equal = own >= best[row] - TIE
        np.maximum.at(latest, row[equal], right[equal])
        above = scores > best[:, None] + TIE
        before = (scores >= best[:, None] - TIE) & (place > latest[:, None])
        found[start : start + len(scores)] = 1 + (above | before).sum(1)
    return found
