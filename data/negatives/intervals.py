"""Confidence intervals of shares: one share, a weighted sum of shares, and a share known from a labelled part.

Two-sided, 95 % unless another `z` is given. Sources: Wilson (JASA 22, 1927), equation of the score interval; Zou and
Donner (Statistics in Medicine 27, 2008), limits of a sum from the limits of its parts; Cochran, Sampling Techniques
(1977), §12.2, double sampling: the variance of the first sample and that of the labelled part of it add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Interval(NamedTuple):
    """A share in [0, 1] with its limits."""

    share: float
    low: float
    high: float


def wilson(count: float, total: float, z: float = Z) -> Interval:
    """Wilson's score interval of `count` out of `total`; [0, 1] where nothing was counted.

    >>> [round(x, 4) for x in wilson(5, 100)]
    [0.05, 0.0215, 0.1118]
    """
    if total == 0:
        return Interval(0.0, 0.0, 1.0)
    share = count / total
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if count == 0 else middle - reach
    return Interval(share, max(0.0, low), 1.0 if count == total else min(1.0, middle + reach))


def weighted_sum(parts: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """The share of a whole made of independent parts: sum of weights times shares, limits after Zou and Donner.

    Args:
        parts: one interval per part.
        weights: what share of the whole each part is; they add up to 1.
    """
    share = sum(w * part.share for part, w in zip(parts, weights, strict=True))
    down = math.sqrt(sum((w * (part.share - part.low)) ** 2 for part, w in zip(parts, weights, strict=True)))
    up = math.sqrt(sum((w * (part.high - part.share)) ** 2 for part, w in zip(parts, weights, strict=True)))
    return Interval(share, max(0.0, share - down), min(1.0, share + up))


class Stratum(NamedTuple):
    """A part of a sample of which some members were looked at: its weight in the sample, the share found, and the
    fraction of its members that nobody looked at."""

    weight: float
    found: Interval
    unseen: float


def double_sample(strata: Sequence[Stratum], drawn: float) -> Interval:
    """The share in the population that a sample of `drawn` members stands for, when only parts of it were looked at.

    It is uncertain because it is a sample, and because in each stratum only some members were looked at (the less, the
    fewer are unseen); the squares of the two distances add up.
    """
    share = sum(part.weight * part.found.share for part in strata)
    first = wilson(share * drawn, drawn)
    down, up = (share - first.low) ** 2, (first.high - share) ** 2
    for weight, found, unseen in strata:
        down += (weight * (found.share - found.low)) ** 2 * unseen
        up += (weight * (found.high - found.share)) ** 2 * unseen
    return Interval(share, max(0.0, share - math.sqrt(down)), min(1.0, share + math.sqrt(up)))


def effective(weights: Iterable[float]) -> float:
    """How many members of equal weight are worth as much as these (Kish, Survey Sampling, 1965, §11.7)."""
    values = list(weights)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / squares if squares else 0.0
