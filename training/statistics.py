"""Statistics of per-item outcomes: cluster bootstrap, exact McNemar, Holm, alpha spending, items needed.

Items of one product are not independent (two captions of one photo succeed or fail together), so the unit that is
resampled is the product family, never the item. Every function is exact or seeded: the same outcomes give the same
interval on every machine.

Intervals are percentile intervals, not BCa: for a mean over as many families as a gate sees the two agree (a test holds
them together), and docs/studies/gate.md shows how often they hold the truth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from data.params import UserError

DRAWS, SEED, ALPHA = 10_000, 29, 0.05
POWER = 0.8  # the chance with which `items_needed` promises a decision
BLOCK = 4_000_000  # multinomial counts held at once, 32 MB

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over items with its interval: `n` items in `units` units, `error` the bootstrap's standard error."""

    value: float
    low: float
    high: float
    error: float
    n: int
    units: int


def estimate(
    values: Floats, units: Integers, span: tuple[float, float], *,
    draws: int = DRAWS, seed: int = SEED, alpha: float = ALPHA,
) -> Estimate:  # fmt: skip
    """The mean of `values` (n,) with a percentile interval from a bootstrap over `units` (n,).

    `span` is the range one value can take, (0, 1) for outcomes and (-1, 1) for their differences. One item at each end
    of it is added to what is resampled (not to the mean): ten items that all agree do not prove that the next one
    will, and a plain bootstrap of them has an interval of length zero. For paired binary outcomes this is the
    adjustment of Bonett and Price (2012, eq. 7). Raises `UserError` on no values or values that are not finite.
    """
    if len(values) == 0 or not np.isfinite(values).all():
        raise UserError("outcomes: empty or not finite, so no estimate exists. Run the evaluation again with --force.")
    sums, counts = unit_totals(values, units)
    means = _bootstrap_means(np.append(sums, span), np.append(counts, (1.0, 1.0)), draws, seed)
    low, high = np.quantile(means, (alpha / 2, 1 - alpha / 2))
    value = float(values.mean())
    return Estimate(
        value=value, low=min(float(low), value), high=max(float(high), value), error=float(means.std()),
        n=len(values), units=len(sums),
    )  # fmt: skip


def unit_totals(values: Floats, units: Integers) -> tuple[Floats, Floats]:
    """Sum of values and number of items of each distinct unit, two arrays (U,) in the order of the unit numbers."""
    _, inverse = np.unique(units, return_inverse=True)
    sums = np.bincount(inverse, weights=values).astype(np.float64)
    return sums, np.bincount(inverse).astype(np.float64)


def _bootstrap_means(sums: Floats, counts: Floats, draws: int, seed: int) -> Floats:
    """`draws` ratios of resampled sums to resampled counts.

    Units with equal (sum, count) are interchangeable, so it is enough to draw how often each *kind* of unit occurs:
    exactly the same distribution, from some ten multinomial cells instead of thousands.
    """
    kinds, number = np.unique(np.column_stack([sums, counts]), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK // len(kinds))
    parts = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        totals = generator.multinomial(number.sum(), number / number.sum(), size=size) @ kinds
        parts.append(totals[:, 0] / totals[:, 1])
    return np.concatenate(parts)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p of McNemar's test: the discordant pairs as coin flips. No discordant pair gives 1."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def discordant_units(differences: Floats, units: Integers) -> tuple[int, int]:
    """How many units favour the challenger and how many the champion: what McNemar counts.

    With one item per unit these are the discordant items. With more, counting items would treat the six captions of
    one photo as six coin flips and find significance where there is none.
    """
    sums, _ = unit_totals(differences, units)
    return int((sums > 0).sum()), int((sums < 0).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def spent(alpha: float, attempt: int) -> float:
    """The part of `alpha` that attempt 1, 2, 3, … may use: alpha / (k (k + 1)), which sums to alpha over all attempts.

    By the union bound no number of attempts, however they depend on each other, is wrong more often than alpha.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, got {attempt}")
    return alpha / (attempt * (attempt + 1))


def items_needed(n: int, error: float, distance: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """How many more items a decision needs, if they vary as the `n` seen do.

    The standard error falls with the square root of the items. A two-sided test at `alpha` notices a true `distance`
    from the threshold with probability `power` once distance = (z(1 - alpha/2) + z(power)) * error(N), hence
    N = n * ((z(1 - alpha/2) + z(power)) * error / distance)^2. At least 1: the present items did not decide.
    """
    if distance <= 0:
        raise ValueError(f"distance must be positive, got {distance}")
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return max(1, math.ceil(n * (z * error / distance) ** 2) - n)
