"""The intervals by hand-computed numbers, by simulation and at their edges."""

from __future__ import annotations

import numpy as np
import pytest

from data.negatives.intervals import Interval, Stratum, double_sample, effective, weighted_sum, wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.277533), (5, 100, 0.021544, 0.111750), (50, 100, 0.403832, 0.596168), (10, 10, 0.722467, 1.0)],
)
def test_wilson_by_hand(count: int, total: int, low: float, high: float) -> None:
    """(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.959964."""
    found = wilson(count, total)
    assert found == pytest.approx((count / total, low, high), abs=1e-6)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 0.0, 1.0)
    assert effective([]) == 0.0


def test_wilson_has_its_level() -> None:
    """Of many samples of 1,000, 95 % have the true share in their interval."""
    generator = np.random.default_rng(1)
    for share in (0.005, 0.02, 0.1):
        counts = generator.binomial(1000, share, size=4000)
        inside = [wilson(int(count), 1000).low <= share <= wilson(int(count), 1000).high for count in counts]
        assert 0.93 <= np.mean(inside) <= 0.975, share


def test_a_sum_of_one_part_is_the_part_and_of_equal_parts_is_narrower() -> None:
    part = wilson(20, 400)
    assert weighted_sum([part], [1.0]) == pytest.approx(part)
    four = weighted_sum([part] * 4, [0.25] * 4)
    assert four.share == pytest.approx(part.share)
    assert four.high - four.share == pytest.approx((part.high - part.share) / 2)


def test_weighted_sum_has_its_level() -> None:
    """Edits of unequal size, a fixed number judged of each."""
    generator = np.random.default_rng(2)
    weights, shares = np.array([0.7, 0.2, 0.06, 0.04]), np.array([0.02, 0.05, 0.0, 0.2])
    truth = float(weights @ shares)
    inside = 0
    for _ in range(1500):
        parts = [wilson(int(k), 500) for k in generator.binomial(500, shares)]
        found = weighted_sum(parts, weights.tolist())
        inside += found.low <= truth <= found.high
    assert 0.935 <= inside / 1500 <= 0.99


def test_what_was_looked_at_completely_adds_no_doubt() -> None:
    """With nothing unseen only the sample's own error is left; the more is unseen, the wider."""
    census = double_sample([Stratum(0.1, wilson(90, 100), 0.0), Stratum(0.9, wilson(0, 900), 0.0)], 1000)
    assert census == pytest.approx(wilson(90, 1000))
    half = double_sample([Stratum(0.1, wilson(90, 100), 0.5), Stratum(0.9, wilson(0, 900), 0.5)], 1000)
    assert half.low < census.low < census.high < half.high
    assert half.share == pytest.approx(0.09)


def test_weights_that_differ_are_worth_fewer_members() -> None:
    assert effective([1.0] * 50) == pytest.approx(50)
    assert effective([3.0, 1.0]) == pytest.approx(16 / 10)


def test_limits_stay_within_0_and_1() -> None:
    assert weighted_sum([Interval(1.0, 0.5, 1.0), Interval(0.9, 0.2, 1.0)], [0.5, 0.5]).high <= 1.0
    assert double_sample([Stratum(1.0, wilson(0, 1), 1.0)], 1).high <= 1.0
