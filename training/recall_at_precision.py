"""Recall at a fixed precision: how much of a catalog can be labelled without a human, at an error rate that was agreed.

For one task over n labelled items with confidence c_i (greatest probability) and correctness r_i: a threshold t accepts
{c_i >= t}; precision = Σ r / |accepted|, recall = Σ r / n. The result is the greatest recall of all thresholds whose
precision is at least p. Items of equal confidence are accepted together.
"""

from __future__ import annotations

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
    if per_class is None:
        return accepted(correct, confidence, p) / max(1, len(correct))
    found = [accepted(correct[per_class == c], confidence[per_class == c], p) for c in np.unique(per_class)]
    return sum(found) / max(1, len(correct))


def accepted(correct: npt.NDArray[np.bool_] | Floats, confidence: Floats, p: float) -> float:
    """The most correct items that any threshold with precision of at least `p` accepts.

    Precision does not fall steadily with the threshold, so all of them are looked at, not only those before the first
    that fails.
    """
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(np.asarray(correct, dtype=np.float64)[order])
    ranked = confidence[order]
    cut = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    legal = cut & (hits >= p * np.arange(1, len(ranked) + 1) - 1e-9)  # 9 of 10 are 0.9, whatever floats say
    return float(hits[legal].max()) if legal.any() else 0.0
