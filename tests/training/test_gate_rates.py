"""The gate's error rates in seeded worlds: the fast version of docs/studies/gate.md."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from training import gate_study
from training.gate_worlds import World, first_lucky, rule
from training.statistics import estimate, unit_totals
from training.verdict import judge

WIDE, MARGIN = 0.5, 0.02


def test_equal_challengers_over_many_attempts_stay_within_alpha() -> None:
    """Ten equal challengers of one champion, 200 times. The union bound allows 4.5 % of these worlds."""
    generator, by = np.random.default_rng(5), rule(WIDE, endpoint="compose")
    lucky = sum(first_lucky(generator, 10, by, spend=True, families=80) > 0 for _ in range(200))
    assert 0 < lucky / 200 <= by.alpha


def test_without_spending_many_attempts_exceed_alpha() -> None:
    """The same with every attempt at the first one's level, as a gate would that does not count them."""
    generator, by = np.random.default_rng(6), rule(WIDE, endpoint="compose")
    lucky = sum(first_lucky(generator, 20, by, spend=False, families=80) > 0 for _ in range(100))
    assert lucky / 100 > by.alpha


def test_power_at_a_stated_effect() -> None:
    """1,200 items of 400 families and a true gain of 12 points everywhere: at least nine in ten pass."""
    generator, verdicts = np.random.default_rng(7), Counter[str]()
    for _ in range(30):
        world = World(generator, 400)
        verdicts[judge(world.challenger("compositional", 0.12, 0.12), world.champion, rule(MARGIN)).verdict] += 1
    assert verdicts["pass"] >= 27
    assert verdicts["fail"] == 0


def test_a_later_attempt_is_judged_more_strictly_on_the_same_outcomes() -> None:
    world = World(np.random.default_rng(8), 200)
    challenger = world.challenger("compositional", 0.1, 0.1)
    first, tenth = (judge(challenger, world.champion, rule(MARGIN, attempt=k)) for k in (1, 10))
    for a, b in zip(first.comparisons, tenth.comparisons, strict=True):
        assert b.low < a.low < a.difference == b.difference < a.high < b.high
        assert a.p == b.p
        assert (b.needs_more_items or 0) >= (a.needs_more_items or 0)


def test_halves_of_passes_never_fail() -> None:
    generator, verdicts, by = np.random.default_rng(9), Counter[str](), rule(MARGIN)
    while sum(verdicts.values()) < 30:
        world = World(generator, 200)
        challenger = world.challenger(by.primary, 0.11, 0.11)
        if judge(challenger, world.champion, by).verdict == "pass":
            verdicts[judge(*world.half(challenger), by).verdict] += 1
    assert verdicts["fail"] == 0
    assert verdicts["inconclusive"] >= 5


def test_items_needed_decide_a_verdict() -> None:
    """As many items as an undecided verdict asks for, drawn anew: the gain it saw is found in most worlds."""
    generator, by, effect = np.random.default_rng(10), rule(MARGIN), 0.06
    asked: list[int] = []
    while len(asked) < 10:
        pilot = World(generator, 150)
        found = judge(pilot.challenger(by.primary, effect, effect), pilot.champion, by)
        primary = found.comparisons[0]
        if found.verdict == "inconclusive" and abs(primary.difference - effect) < 0.01:
            asked.append(found.needs_more_items or 0)
    families = 150 + round(float(np.median(asked)) / 3)
    passes = 0
    for _ in range(25):
        world = World(generator, families)
        passes += judge(world.challenger(by.primary, effect, effect), world.champion, by).verdict == "pass"
    assert passes >= 15


def test_percentile_interval_is_near_bca() -> None:
    """scipy's BCa of the same ratio of family totals; ours is a little wider by the two items it adds."""
    generator = np.random.default_rng(11)
    units = np.repeat(np.arange(150), generator.integers(1, 5, 150))
    values = generator.choice([-1.0, 0.0, 1.0], len(units), p=[0.1, 0.7, 0.2])
    ours = estimate(values, units, (-1.0, 1.0))
    sums, counts = unit_totals(values, units)
    found = bootstrap(
        (sums, counts), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, vectorized=True, method="BCa",
        n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(found.low, abs=0.006)
    assert ours.high == pytest.approx(found.high, abs=0.006)


def test_the_published_study_keeps_its_promises() -> None:
    """What docs/studies/gate.json says: at most alpha with spending, no fail among halves, coverage near 95 %."""
    found = json.loads((Path(__file__).parents[2] / gate_study.DOCS / "gate.json").read_text())
    assert max(row["share"] for row in found["lucky"] if row["spend"]) <= found["alpha"]
    assert max(row["share"] for row in found["lucky"] if not row["spend"]) > found["alpha"]
    assert all(row["fail"] == 0 for row in found["halving"])
    assert any(row["inconclusive"] > 0.2 for row in found["halving"])
    assert all(0.93 <= row["by_families"] <= 0.99 for row in found["coverage"])
    assert min(row["by_items"] for row in found["coverage"]) < 0.8
    nothing = [row for row in found["power"] if row["effect"] == 0]
    assert sum(row["pass"] for row in nothing) / len(nothing) <= found["alpha"]
    page = (Path(__file__).parents[2] / gate_study.DOCS / "gate.md").read_text()
    assert page == gate_study.page(found)
