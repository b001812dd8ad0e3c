"""What several official benchmarks share of scoring: pairs, ranks, means. The house rule: a tie is never a success."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.outcomes import DETAIL_DIGITS, SCHEMA, cells, column
from training.ranking import TIE

OFFICIAL = " (official)"
Floats = npt.NDArray[np.float64]


def table(
    benchmark: str, metric: str, items: pa.Table, outcome: npt.NDArray, detail: npt.NDArray,
    slices: Sequence[str] | None = None,
) -> pa.Table:  # fmt: skip
    """Outcomes in [0, 1] of one metric, one row per item (columns `item_id` and `group`), in their order.

    `detail` is what decided: a difference of scores, a rank, a confidence. Raises ValueError on what is not finite.
    """
    n, outcome, detail = items.num_rows, np.asarray(outcome, np.float64), np.asarray(detail, np.float64)
    if len(outcome) != n or len(detail) != n or not (np.isfinite(outcome).all() and np.isfinite(detail).all()):
        raise ValueError(f"{benchmark} {metric}: not one finite outcome for each of {n} items")
    return pa.table(
        [
            pa.array([benchmark] * n), pa.array([metric] * n), items["item_id"].cast(pa.string()),
            items["group"].cast(pa.int64()), pa.array(outcome), pa.array(list(slices or [""] * n)),
            pa.array(np.round(detail, DETAIL_DIGITS)),
        ],
        schema=SCHEMA,
    )  # fmt: skip


def means(outcomes: pa.Table) -> dict[str, float]:
    """{metric: percent}, each the plain mean over its items."""
    return {metric: percent(column(cell, "outcome")) for (_, metric), cell in cells(outcomes).items()}


def by_slice(outcomes: pa.Table, metric: str) -> dict[str, float]:
    """{slice: percent} of one metric: plain means, slices sorted by name."""
    (cell,) = (cell for (_, name), cell in cells(outcomes).items() if name == metric)
    values, names = column(cell, "outcome"), column(cell, "slice")
    return {str(name): percent(values[names == name]) for name in sorted(set(names))}


def percent(values: npt.NDArray) -> float:
    """100 times the mean."""
    return float(100 * np.mean(values))


def pessimistic(scores: npt.NDArray, target: int) -> int:
    """1 + how many others score at least as high as the target, up to rounding. Scores (N,)."""
    return int((np.delete(np.asarray(scores), target) >= scores[target] - TIE).sum()) + 1
