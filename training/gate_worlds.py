"""Worlds in which it is known whether a challenger is better, to see what the gate makes of it.

A world has families of items. A family shares how hard it is, and whether a challenger happens to do better or worse on
it; over all families that cancels out, so a challenger's true gain is `effect` and nothing else. Everything
is drawn from the generator that a world is given, so a seed tells the whole story.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.benchmarks import of_endpoint
from training.outcomes import column, outcome_table
from training.statistics import mcnemar, unit_totals
from training.verdict import Rule, judge

SIZE, SPREAD = 3, 0.15  # items of a family; how much better or worse a challenger does on a family
EASIEST, HARDEST = 0.7, 0.3  # chances of success; far enough from 0 and 1 that effects add up
Flags = npt.NDArray[np.bool_]


class World:
    """`families` families of three items on every benchmark of an endpoint, and a champion who sat them."""

    def __init__(self, generator: np.random.Generator, families: int, endpoint: str = "search") -> None:
        self._generator, self._exams, self.units = (
            generator,
            of_endpoint(endpoint),
            np.repeat(np.arange(families), SIZE),
        )
        ids = [f"{i:06}" for i in range(len(self.units))]
        self._items = pa.table({"item_id": ids, "group": pa.array(self.units, pa.int64())})
        self._ease = {name: generator.uniform(HARDEST, EASIEST, families) for name in self._exams}
        self.champion = self._sat(self._ease)

    def challenger(self, primary: str, effect: float = 0.0, elsewhere: float = 0.0) -> pa.Table:
        """Outcomes of a model whose true gain is `effect` on `primary` and `elsewhere` on the other benchmarks."""
        chances = {}
        for name, ease in self._ease.items():
            luck = SPREAD * self._generator.choice([-1.0, 1.0], len(ease))
            chances[name] = ease + luck + (effect if name == primary else elsewhere)
        return self._sat(chances)

    def half(self, challenger: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Challenger and champion on a random half of the families."""
        families = self.units.max() + 1
        kept = pa.array(self._generator.choice(families, families // 2, replace=False))
        ours, theirs = (table.filter(pc.is_in(table["unit"], kept)) for table in (challenger, self.champion))
        return ours, theirs

    def _sat(self, chances: dict[str, npt.NDArray[np.float64]]) -> pa.Table:
        """Every metric of a benchmark drawn by itself; a control gets nothing right."""
        tables = []
        for name, benchmark in self._exams.items():
            for metric in benchmark.gate_metrics:
                right = self._generator.random(len(self.units)) < chances[name][self.units]
                tables.append(self._table(name, metric, right))
            if benchmark.control:
                tables.append(self._table(name, benchmark.control, np.zeros(len(self.units), bool)))
        return pa.concat_tables(tables)

    def _table(self, name: str, metric: str, right: Flags) -> pa.Table:
        return outcome_table(name, metric, self._items, right, right.astype(np.float64))


def rule(margin: float, *, endpoint: str = "search", attempt: int = 1, alpha: float = 0.05) -> Rule:
    """A rule with the same margin on every benchmark of an endpoint; its first benchmark is the primary one."""
    margins = dict.fromkeys(of_endpoint(endpoint), margin)
    return Rule(endpoint=endpoint, draws=1000, alpha=alpha, margins=margins, primary=next(iter(margins)),
                attempt=attempt)  # fmt: skip


def promoted(challenger: pa.Table, champion: pa.Table, by: Rule) -> bool:
    """Whether the gate passes the challenger. Judged only if McNemar's test leaves that open: most worlds are not."""
    p_values = []
    for metric in of_endpoint(by.endpoint)[by.primary].gate_metrics:
        a, b = (_cell(table, by.primary, metric) for table in (challenger, champion))
        sums, _ = unit_totals(column(a, "outcome") - column(b, "outcome"), column(a, "unit"))
        p_values.append(mcnemar(int((sums > 0).sum()), int((sums < 0).sum())))
    return min(p_values) <= 2 * by.level and judge(challenger, champion, by).verdict == "pass"


def _cell(table: pa.Table, benchmark: str, metric: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["benchmark"], benchmark), pc.equal(table["metric"], metric)))


def first_lucky(generator: np.random.Generator, attempts: int, by: Rule, *, spend: bool, families: int = 150) -> int:
    """Which of `attempts` equal challengers of one champion is promoted first, from 1; 0 if none is."""
    world = World(generator, families, by.endpoint)
    for attempt in range(1, attempts + 1):
        used = dataclasses.replace(by, attempt=attempt if spend else 1)
        if promoted(world.challenger(by.primary), world.champion, used):
            return attempt
    return 0
