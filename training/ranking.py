"""Retrieval ranks by blocked counting: nothing is sorted, and no more than BLOCK rows of scores exist at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.params import UserError

BLOCK = 256  # rows per matrix product: past this a block of 10,000 columns leaves the cache and counting slows fourfold
TIE = 1e-6  # cosines nearer than this differ by the order of summation, not by what the model thinks

Embeddings = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def ranks(left: Embeddings, right: Embeddings, pairs: Integers) -> tuple[Integers, Integers]:
    """Rank of the best correct partner, of each left among all right and of each right among all left.

    Args:
        left, right: unit vectors (L, D) and (R, D), float32; the score is their dot product.
        pairs: (P, 2) distinct (left, right) index pairs that are correct; every left and right has at least one.

    Returns (L,) and (R,) int64, 1 is best. Pessimistic: rank = 1 + #{wrong candidates with score >= the best correct
    score}, up to TIE, so a tie is never a success; further correct candidates push nothing down. Both directions come
    from one matrix product, in O(BLOCK x R) memory.
    """
    import torch

    a, b, order = torch.from_numpy(left), torch.from_numpy(right), np.argsort(pairs[:, 0], kind="stable")
    p, q = (torch.from_numpy(np.ascontiguousarray(pairs[order, side])) for side in (0, 1))
    correct = (a[p] * b[q]).sum(1)
    row_bar = _best(correct, p, len(left)) - TIE
    column_bar = _best(correct, q, len(right)) - TIE
    rows, columns = torch.ones(len(left), dtype=torch.int64), torch.ones(len(right), dtype=torch.int64)
    starts = torch.searchsorted(p, torch.arange(0, len(left) + BLOCK, BLOCK)).tolist()
    for block, start in enumerate(range(0, len(left), BLOCK)):
        stop = min(start + BLOCK, len(left))
        scores = a[start:stop] @ b.T
        rows[start:stop] += (scores >= row_bar[start:stop, None]).sum(1)
        columns += (scores >= column_bar).sum(0)
        # The correct ones were counted too; take them out again, read from the same product so that they agree bit
        # for bit with what was counted.
        x, y = p[starts[block] : starts[block + 1]], q[starts[block] : starts[block + 1]]
        known = scores[x - start, y]
        rows.index_add_(0, x, -(known >= row_bar[x]).long())
        columns.index_add_(0, y, -(known >= column_bar[y]).long())
    return rows.numpy(), columns.numpy()


def ranks_without_own(
    queries: Embeddings, photos: Embeddings, own: Integers, right: Sequence[Sequence[int]]
) -> Integers:
    """`best_ranks` (N,) where `own` (N,), the place of a query's own photo, is neither right nor wrong."""
    return best_ranks(queries, photos, right, own)


def best_ranks(
    queries: Embeddings, candidates: Embeddings, right: Sequence[Sequence[int]], own: Integers | None = None
) -> Integers:
    """Pessimistic rank (N,) of each query's best right candidate, 1 is best; scores within TIE count as equal.

    Args:
        queries, candidates: unit vectors (N, D) and (G, D).
        right: places of the right candidates of each query, at least one.
        own: (N,) place of a candidate that is left out of each query's ranking, as if it were not there.
    """
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        scores = queries[part] @ candidates.T
        rows = np.arange(len(scores))
        correct = np.zeros(scores.shape, dtype=bool)
        counts = [len(places) for places in right[part]]
        correct[np.repeat(rows, counts), list(itertools.chain.from_iterable(right[part]))] = True
        if own is not None:
            scores[rows, own[part]] = -np.inf
        best = np.where(correct, scores, -np.inf).max(1, keepdims=True)
        found[part] = 1 + ((scores >= best - TIE) & ~correct).sum(1)
    return found


def likeliest(probabilities: Floats) -> tuple[Integers, Floats, npt.NDArray[np.bool_]]:
    """The likeliest class (N,) of probabilities (N, C), its probability, and whether no other class is as likely."""
    chosen = probabilities.argmax(1)
    top = probabilities[np.arange(len(chosen)), chosen]
    return chosen, top, (probabilities >= top[:, None] - TIE).sum(1) == 1


def _best(scores, index, size: int):  # type: ignore[no-untyped-def]  # torch stays out of this module's imports
    import torch

    best = torch.full((size,), -torch.inf).scatter_reduce(0, index, scores, "amax")
    if torch.isinf(best).any():
        raise UserError("retrieval suite: a query has no correct target. Rebuild it with `dvc repro -f suites`.")
    return best
