"""From two models' outcomes on the same items to pass, fail or inconclusive. No file is read here.

A challenger passes when it is non-inferior on every compared metric (the interval of the difference lies above minus
the margin) and superior on the primary benchmark. It fails when it is worse than a margin with certainty, or when the
primary benchmark excludes any gain. Otherwise the items are too few to decide, and the verdict says how many it takes.

Promotion is a one-sided question, asked again at every attempt. `alpha` is the chance that a method ever replaces a
champion by a model that is no better, spent over all its attempts (`statistics.spent`). What one attempt may use is the
rule's `level`; its intervals leave that much out at either end.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import pyarrow as pa

from data.params import UserError
from training.benchmarks import BENCHMARKS, of_endpoint
from training.outcomes import cells, column
from training.paired import Cells, paired
from training.statistics import Estimate, discordant_units, estimate, holm, items_needed, mcnemar, spent

Verdict = Literal["pass", "fail", "inconclusive"]
MOST_DRAWS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointGate:
    """What counts for one endpoint.

    `margins` are the losses tolerated on each of its benchmarks, as shares (0.01 is one point); on `primary` a
    challenger must be better.
    """

    primary: str
    margins: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The `gate` section: statistics that hold for all, and the settings of each endpoint."""

    draws: int = 10_000
    seed: int = 29
    alpha: float = 0.05
    endpoints: dict[str, EndpointGate]

    def __post_init__(self) -> None:
        known = sorted({benchmark.endpoint for benchmark in BENCHMARKS.values()})
        if set(self.endpoints) != set(known):
            raise ValueError(f"endpoints: one block is needed for each of {', '.join(known)} and nothing else")
        for name in self.endpoints:
            try:
                self.rule(name)
            except ValueError as error:
                raise ValueError(f"endpoints.{name}: {error}") from None

    def rule(self, endpoint: str, attempt: int = 1) -> Rule:
        """All settings by which a method's given attempt at the champion of `endpoint` is judged."""
        chosen = self.endpoints[endpoint]
        return Rule(
            endpoint=endpoint, draws=self.draws, seed=self.seed, alpha=self.alpha, margins=chosen.margins,
            primary=chosen.primary, attempt=attempt,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How a challenger of one endpoint is judged: see `GateConfig` and `EndpointGate`.

    `attempt` counts those of the challenger's method against this champion.
    """

    endpoint: str = "search"
    draws: int = 10_000
    seed: int = 29
    alpha: float = 0.05
    margins: dict[str, float]
    primary: str
    attempt: int = 1

    def __post_init__(self) -> None:
        exams = of_endpoint(self.endpoint)
        if self.draws < 1000:
            raise ValueError(f"draws: {self.draws} resamples leave the interval's ends to chance; use at least 1000")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha: {self.alpha} is not an error rate between 0 and 0.5")
        if set(self.margins) != set(exams):
            raise ValueError(f"margins: one is needed for each of {', '.join(exams)} and nothing else")
        for name, margin in self.margins.items():
            if not 0 < margin < 1:
                raise ValueError(f"margins.{name}: {margin} is not a share between 0 and 1")
        if self.primary not in exams:
            raise ValueError(f"primary: {self.primary!r} is not one of {', '.join(exams)}")

    @property
    def level(self) -> float:
        """The chance that this attempt promotes a model that is no better, one-sided."""
        return spent(self.alpha, self.attempt)

    @property
    def confidence(self) -> float:
        """Of the intervals, which have two ends: 0.95 at a first attempt."""
        return 1 - 2 * self.level

    @property
    def lucky(self) -> float:
        """The chance that any of this method's attempts so far promotes a model that is no better, at most."""
        return sum(spent(self.alpha, k) for k in range(1, self.attempt + 1))

    @property
    def lucky_unspent(self) -> float:
        """The same, had every attempt been judged at the first one's level."""
        return 1 - (1 - spent(self.alpha, 1)) ** self.attempt

    @property
    def resamples(self) -> int:
        """As many as leave the same number beyond an interval's end as `draws` do at the usual level."""
        return min(MOST_DRAWS, round(self.draws * spent(self.alpha, 1) / self.level))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Challenger against champion on one metric; shares and differences of shares, not percent.

    Attributes:
        p: Holm-adjusted over all comparisons; `p_single` is the exact McNemar p, discordant units as coin flips.
        gained, lost: items that only the challenger, or only the champion, gets right.
        beyond_control: the difference on items that the benchmark's control gets wrong; None where there is no control.
    """

    name: str
    metric: str
    challenger: float
    champion: float
    difference: float
    low: float
    high: float
    p: float
    p_single: float
    margin: float
    superior: bool
    non_inferior: bool
    n_items: int
    n_units: int
    gained: int
    lost: int
    beyond_control: dict[str, float] | None
    needs_more_items: int | None
    verdict: Verdict

    @property
    def label(self) -> str:
        return f"{self.name.replace('_', ' ')} {self.metric}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """The overall verdict, the comparisons behind it, and one sentence of reason that completes "The challenger …"."""

    verdict: Verdict
    reason: str
    needs_more_items: int | None
    comparisons: list[Comparison]


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One compared metric before Holm: the difference, and the same beyond the control's reach."""

    key: tuple[str, str]
    champion: float
    challenger: float
    whole: Estimate
    beyond: Estimate | None
    p: float
    gained: int
    lost: int
    discordant: tuple[int, int]  # families that favour the challenger, and the champion


def judge(challenger: pa.Table, champion: pa.Table, config: Rule) -> Judgement:
    """The verdict on two outcome tables. Raises `UserError` unless both hold exactly the same items and units.

    Only the benchmarks of the rule's endpoint are compared, whatever else either model sat.
    """
    ours, theirs = cells(challenger), cells(champion)
    measured = [
        _measure(ours, theirs, (name, metric), benchmark.control, config)
        for name, benchmark in of_endpoint(config.endpoint).items()
        for metric in benchmark.gate_metrics
    ]
    adjusted = holm([m.p for m in measured])
    superior = [_superior(m, p, 2 * config.level) for m, p in zip(measured, adjusted, strict=True)]
    primary = [i for i, m in enumerate(measured) if m.key[0] == config.primary]
    shown = any(superior[i] for i in primary)
    hopeless = all(_no_gain(measured[i]) for i in primary)
    comparisons = []
    for index, m in enumerate(measured):
        verdict = _verdict(m, config, index in primary, shown, hopeless)
        comparisons.append(_comparison(m, config, adjusted[index], superior[index], verdict))
    return _conclude(comparisons, config)


def _measure(ours: Cells, theirs: Cells, key: tuple[str, str], control: str | None, config: Rule) -> _Measured:
    a, b = paired(ours, theirs, key)
    challenger, champion, units = column(a, "outcome"), column(b, "outcome"), column(a, "unit")
    difference = challenger - champion
    measure = functools.partial(
        estimate, span=(-1.0, 1.0), draws=config.resamples, seed=config.seed, alpha=2 * config.level
    )
    beyond = None
    if control:
        missed = column(paired(ours, theirs, (key[0], control))[0], "outcome") == 0
        if not missed.any():
            raise UserError(
                f"{key[0]}: {BENCHMARKS[key[0]].blind} solves every item, so the suite proves nothing about seeing."
            )
        beyond = measure(difference[missed], units[missed])
    discordant = discordant_units(difference, units)
    return _Measured(
        key=key, champion=float(champion.mean()), challenger=float(challenger.mean()),
        whole=measure(difference, units), beyond=beyond,
        p=mcnemar(*discordant), discordant=discordant,
        gained=int((difference > 0).sum()), lost=int((difference < 0).sum()),
    )  # fmt: skip


def _superior(m: _Measured, p: float, alpha: float) -> bool:
    """Better by the interval, by the adjusted test, and also on the items that cannot be solved without looking."""
    return p <= alpha and m.whole.low > 0 and (m.beyond is None or m.beyond.low > 0)


def _no_gain(m: _Measured) -> bool:
    return m.whole.high <= 0 or (m.beyond is not None and m.beyond.high <= 0)


def _verdict(m: _Measured, config: Rule, primary: bool, shown: bool, hopeless: bool) -> Verdict:
    """Of one comparison; `shown` and `hopeless` say of the primary benchmark that a gain is certain, or excluded."""
    margin = config.margins[m.key[0]]
    if m.whole.high < -margin or (primary and hopeless):
        return "fail"
    return "pass" if m.whole.low > -margin and (shown or not primary) else "inconclusive"


def _comparison(m: _Measured, config: Rule, p: float, superior: bool, verdict: Verdict) -> Comparison:
    name, e, b = m.key[0], m.whole, m.beyond
    return Comparison(
        name=name, metric=m.key[1], challenger=m.challenger, champion=m.champion, difference=e.value, low=e.low,
        high=e.high, p=p, p_single=m.p, margin=config.margins[name], superior=superior,
        non_inferior=e.low > -config.margins[name], n_items=e.n, n_units=e.units, gained=m.gained, lost=m.lost,
        beyond_control=None if b is None else {"difference": b.value, "low": b.low, "high": b.high, "n_items": b.n},
        needs_more_items=_needed(m, config, superior) if verdict == "inconclusive" else None, verdict=verdict,
    )  # fmt: skip


def _needed(m: _Measured, config: Rule, superior: bool) -> int:
    """More items of this benchmark until its open questions would be decided, at today's variance and level.

    The distance to be noticed is that between the observed difference and the threshold in question, but no smaller
    than the margin: the margin is the smallest difference that anybody said matters.
    """
    margin, e, alpha, needed = config.margins[m.key[0]], m.whole, 2 * config.level, [1]
    if e.low <= -margin:
        needed.append(items_needed(e.n, e.error, max(abs(e.value + margin), margin), alpha=alpha))
    if m.key[0] == config.primary and not superior:
        needed.append(items_needed(e.n, e.error, max(abs(e.value), margin), alpha=alpha))
        needed.append(_needed_by_mcnemar(m, margin, alpha / _compared(config)))  # Holm's first step
        if m.beyond is not None and m.beyond.low <= 0:
            b = m.beyond
            more = items_needed(b.n, b.error, max(abs(b.value), margin), alpha=alpha)
            needed.append(-(-more * e.n // b.n))  # only b.n of e.n items are beyond the control
    return max(needed)


def _needed_by_mcnemar(m: _Measured, margin: float, alpha: float) -> int:
    """The same for McNemar's test over families: of F families, the shares that favour either model differ by
    (wins - losses) / F, with a standard error of sqrt(wins + losses) / F where neither is better."""
    (wins, losses), families = m.discordant, m.whole.units
    distance = max(abs(wins - losses) / families, margin)
    more = items_needed(families, (wins + losses) ** 0.5 / families, distance, alpha=alpha)
    return -(-more * m.whole.n // families)


def _compared(config: Rule) -> int:
    return sum(len(benchmark.gate_metrics) for benchmark in of_endpoint(config.endpoint).values())


def _conclude(comparisons: list[Comparison], config: Rule) -> Judgement:
    primary = [c for c in comparisons if c.name == config.primary]
    failed = [c for c in comparisons if c.verdict == "fail"]
    verdict: Verdict = "inconclusive"
    needs = None
    if failed:
        verdict, reason = "fail", _why_failed(failed[0])
    elif all(c.non_inferior for c in comparisons) and any(c.superior for c in primary):
        best = max((c for c in primary if c.superior), key=lambda c: c.difference)
        verdict = "pass"
        reason = f"is better on {best.label} by {_points(best)}, and on no benchmark worse by more than its margin"
    else:
        open_ = max((c for c in comparisons if c.needs_more_items), key=lambda c: c.needs_more_items or 0)
        needs = open_.needs_more_items
        reason = (
            f"stays undecided: on {open_.label} the difference is {_points(open_)}, so {_doubt(open_)}; "
            f"about {needs:,} more items would decide"
        )
    return Judgement(verdict=verdict, reason=reason, needs_more_items=needs, comparisons=comparisons)


def _doubt(c: Comparison) -> str:
    if not c.non_inferior:
        return f"a loss of more than {100 * c.margin:g} points is not excluded"
    if c.low > 0 and c.beyond_control and c.beyond_control["low"] <= 0:
        return f"a gain is proven only where {BENCHMARKS[c.name].blind} succeeds as well"
    return "a gain is not proven"


def _why_failed(c: Comparison) -> str:
    if c.high < -c.margin:
        return f"is worse on {c.label} by more than the margin of {100 * c.margin:g} points: {_points(c)}"
    if c.high <= 0:
        return f"is no better on {c.label}, the primary benchmark: {_points(c)}"
    return f"gains on {c.label} only where {BENCHMARKS[c.name].blind} succeeds without looking: {_points(c)} in all"


def _points(c: Comparison) -> str:
    return f"{100 * c.difference:+.1f} points (interval {100 * c.low:+.1f} to {100 * c.high:+.1f})"
