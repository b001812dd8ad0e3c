import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.params import UserError
from training.statistics import (
    _bootstrap_means,
    discordant_units,
    estimate,
    holm,
    items_needed,
    mcnemar,
    unit_totals,
)


def test_unit_totals_by_hand():
    sums, counts = unit_totals(np.array([1.0, 0, 1, -1]), np.array([7, 7, 2, 9]))
    assert sums.tolist() == [1, 1, -1]  # units in the order 2, 7, 9
    assert counts.tolist() == [1, 2, 1]


def test_bootstrap_of_three_units_matches_full_enumeration():
    """27 equally likely resamples of three units of different size: the drawn means have exactly that distribution."""
    sums, counts = np.array([2.0, 0.0, 1.0]), np.array([2.0, 1.0, 1.0])
    exact = [sums[list(i)].sum() / counts[list(i)].sum() for i in itertools.product(range(3), repeat=3)]
    drawn = _bootstrap_means(sums, counts, draws=40_000, seed=1)
    assert set(np.round(drawn, 9)) == set(np.round(exact, 9))
    for value in set(exact):
        share = np.isclose(exact, value).mean()
        assert np.isclose(drawn, value).mean() == pytest.approx(share, abs=0.01)


def test_interval_contains_the_mean_and_is_seeded():
    values, units = np.array([1.0, 0, 1, 1, 0, 1, 1, 1]), np.arange(8)
    first = estimate(values, units, (0, 1))
    assert first.value == 0.75
    assert first.low < 0.75 < first.high
    assert (first.n, first.units) == (8, 8)
    assert estimate(values, units, (0, 1)) == first
    assert estimate(values, units, (0, 1), seed=5) != first


def test_interval_is_independent_of_the_order_of_items():
    generator = np.random.default_rng(0)
    values, units = generator.integers(0, 2, 200).astype(float), generator.integers(0, 60, 200)
    order = generator.permutation(200)
    assert estimate(values, units, (0, 1)) == estimate(values[order], units[order], (0, 1))


def test_agreeing_items_do_not_give_an_interval_of_length_zero():
    """Twenty identical outcomes leave room for doubt (rule of three: 3/20), and two thousand leave little."""
    few = estimate(np.zeros(20), np.arange(20), (-1.0, 1.0))
    many = estimate(np.zeros(2000), np.arange(2000), (-1.0, 1.0))
    assert few.low < -0.05
    assert few.high > 0.05
    assert -0.003 < many.low < 0 < many.high < 0.003


def test_correlated_items_widen_the_interval():
    """Ten copies of each outcome carry no more information than one."""
    base = np.random.default_rng(3).integers(0, 2, 100).astype(float)
    values, units = np.repeat(base, 10), np.repeat(np.arange(100), 10)
    clustered, naive = estimate(values, units, (0, 1)), estimate(values, np.arange(1000), (0, 1))
    single = estimate(base, np.arange(100), (0, 1))
    assert clustered.error > 2.5 * naive.error
    assert clustered.error == pytest.approx(single.error, rel=0.1)


def test_coverage_is_nominal_under_correlation():
    """In 300 worlds whose families succeed together, the interval holds the true difference in 95 % of them."""
    generator, hits, worlds = np.random.default_rng(11), 0, 300
    means = np.array([-0.6, 0.0, 0.2, 0.8])  # a family's own mean difference, each equally likely: 0.1 on average
    for _ in range(worlds):
        units = np.repeat(np.arange(150), generator.integers(1, 6, 150))
        mean = generator.choice(means, 150)[units]
        values = np.where(generator.random(len(units)) < np.abs(mean), np.sign(mean), 0.0)
        found = estimate(values, units, (-1, 1), draws=1000, seed=2)
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / worlds <= 0.98


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan])])
def test_no_estimate_from_nothing_or_nan(bad):
    with pytest.raises(UserError, match="not finite"):
        estimate(bad, np.arange(len(bad)), (0, 1))


def test_five_thousand_items_take_less_than_a_second():
    import time

    generator = np.random.default_rng(0)
    values, units = generator.integers(-1, 2, 5000).astype(float), generator.integers(0, 1200, 5000)
    started = time.process_time()
    estimate(values, units, (-1, 1))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 5), (8, 2), (5, 5), (37, 61), (1200, 1100)])
def test_mcnemar_is_twice_the_smaller_tail(wins, losses):
    n = wins + losses
    expected = 2 * sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    assert mcnemar(wins, losses) == pytest.approx(min(1, expected), rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 32)


def test_discordant_units_count_families_not_items():
    differences = np.array([1.0, 1, 1, -1, 1, -1, 0])
    units = np.array([1, 1, 1, 2, 3, 3, 4])
    assert discordant_units(differences, units) == (1, 1)  # family 3 is undecided, family 4 unchanged
    assert discordant_units(differences, np.arange(7)) == (4, 2)


def test_holm_textbook_example():
    """p = .01 .04 .03 .005: sorted .005*4 .01*3 .03*2 max(.06, .04*1)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=50)
def test_holm_is_monotone_and_between_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p_values))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_items_needed_by_hand():
    """error 0.01 at 1,000 items, distance 0.02: z = 1.959964 + 0.841621, (2.801585 * 0.5)^2 * 1000 = 1962.2."""
    assert items_needed(1000, 0.01, 0.02) == 1963 - 1000
    assert items_needed(1000, 0.001, 0.02) == 1  # enough by calculation, yet undecided: at least one more
    with pytest.raises(ValueError, match="positive"):
        items_needed(1000, 0.01, 0.0)


def test_items_needed_keeps_its_promise():
    """With that many items the difference is found in about 80 % of repetitions."""
    generator, true, n = np.random.default_rng(8), 0.1, 400

    def draw(size):
        return generator.choice([1.0, 0.0, -1.0], size, p=[0.25, 0.6, 0.15])

    pilot = estimate(draw(n), np.arange(n), (-1, 1), draws=2000)
    total = n + items_needed(n, pilot.error, true)
    found = sum(estimate(draw(total), np.arange(total), (-1, 1), draws=1000).low > 0 for _ in range(200)) / 200
    assert 0.7 < found < 0.9
