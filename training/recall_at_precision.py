"""Recall at a fixed precision: how much of a catalog can be labelled without a human, at an error rate that was agreed.

For one task over n labelled items with confidence c_i (greatest probability) and correctness r_i: a threshold t accepts
{c_i >= t}; precision = Σ r / |accepted|, recall = Σ r / n. The result is the greatest recall of all thresholds whose
precision is at least p. Items of equal confidence are accepted together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def recall_at_precision(
    correct: npt.NDArray[np.bool_] | Floats, confidence: Floats, p: float = 0.9,
    per_class: npt.NDArray[np.int64] | None = None,
) -> float:  # fmt: skip
    """The greatest recall at precision `p`, 0 where no threshold reaches it.

    Args:
        correct, confidence: (n,) of the labelled items of one task.
        per_class: (n,) predicted classes; then one threshold per class, each at precision p, and recall over all n.
    """
    classes = np.zeros(len(correct), dtype=np.int64) if per_class is None else per_class
    return float(accepted_and_correct(correct, confidence, p, classes).sum()) / max(1, len(correct))


def accepted_and_correct(
    correct: npt.NDArray[np.bool_] | Floats, confidence: Floats, p: float, groups: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Which items (n,) count towards recall when each group has a threshold of its own."""
    found = np.zeros(len(correct), dtype=bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        limit = threshold(correct[rows], confidence[rows], p)
        found[rows] = np.asarray(correct[rows], dtype=bool) & (confidence[rows] >= limit)
    return found


def threshold(correct: npt.NDArray[np.bool_] | Floats, confidence: Floats, p: float) -> float:
    """The lowest confidence to accept at precision `p`; infinity where no threshold reaches it.

    Precision does not fall steadily with the threshold, so all of them are looked at, not only those before the first
    that fails.
    """
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(np.asarray(correct, dtype=np.float64)[order])
    ranked = confidence[order]
    cut = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    enough = p * np.arange(1, len(ranked) + 1) - 1e-9  # 9 of 10 are 0.9, whatever floats say
    legal = cut & (hits > 0) & (hits >= enough)
    return float(ranked[legal].min()) if legal.any() else float("inf")
