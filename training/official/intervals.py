"""95 % intervals of published metrics, which are seldom a plain mean over items.

Most headlines are linear in the outcomes (means of means: over relations, types, tasks). Such a metric is written as a
mean of one number per outcome row, its linear influence, and `training.statistics.estimate` resamples that by group:

    θ = Σ_i w_k(i) o_i,   v_i = θ + n w_k(i) (o_i - ō_k(i)),   mean(v) = θ

with k(i) the cell (metric and slice) of row i. The weights w are read off the metric itself, cell by cell. What is not
linear (F1, recall at a precision), or has too many cells for that, is computed anew on resampled groups.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.official.contract import Official
from training.statistics import ALPHA, SEED, estimate

CELLS = 256  # of which the weights are read off one by one
DRAWS = 400  # of what is computed anew each time
EXACT = 1e-9

Floats = npt.NDArray[np.float64]
Statistic = Callable[[pa.Table], float]


def headline(benchmark: Official, outcomes: pa.Table) -> tuple[float, float]:
    """(low, high) of the benchmark's headline in percent, groups resampled."""

    def statistic(table: pa.Table) -> float:
        return benchmark.metrics(table)[benchmark.headline] / 100

    value = statistic(outcomes)
    if (weights := _weights(statistic, outcomes, value)) is not None:
        found = estimate(*_influence(outcomes, weights, value), (0.0, 1.0))
        low, high = found.low, found.high
    else:
        generator = np.random.default_rng(SEED)
        draws = [statistic(_resampled(outcomes, generator)) for _ in range(DRAWS)]
        low, high = (float(limit) for limit in np.quantile(draws, (ALPHA / 2, 1 - ALPHA / 2)))
    return 100 * min(max(low, 0.0), value), 100 * max(min(high, 1.0), value)


def _weights(statistic: Statistic, outcomes: pa.Table, value: float) -> Floats | None:
    """What each row weighs in the statistic; None if it is not linear or has too many cells."""
    cells = _cells(outcomes)
    metrics = pd.factorize(outcomes["metric"].to_pandas())[0]
    weights = np.zeros(len(cells))
    chance = np.random.default_rng(SEED).random(len(cells))
    try:
        used = [m for m in range(metrics.max() + 1) if statistic(_with(outcomes, metrics == m)) != 0]
        asked = np.unique(cells[np.isin(metrics, used)])
        if len(asked) > CELLS:
            return None
        for cell in asked:
            rows = cells == cell
            weights[rows] = statistic(_with(outcomes, rows)) / rows.sum()
        linear = abs(statistic(_with(outcomes, chance)) - weights @ chance) < EXACT
    except (ArithmeticError, ValueError):  # outcomes that no scorer gives, such as a class that is never right
        return None
    return weights if linear and abs(weights @ _outcome(outcomes) - value) < EXACT else None


def _influence(outcomes: pa.Table, weights: Floats, value: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """v (n,) of the rows that weigh something, and their groups."""
    rows, cells, outcome = weights != 0, _cells(outcomes), _outcome(outcomes)
    means = (np.bincount(cells, outcome) / np.bincount(cells))[cells]
    v = value + rows.sum() * weights * (outcome - means)
    return v[rows], outcomes["unit"].to_numpy()[rows]


def _cells(outcomes: pa.Table) -> npt.NDArray[np.int64]:
    """The number of each row's cell."""
    found = outcomes.select(["metric", "slice"]).to_pandas().groupby(["metric", "slice"], sort=False).ngroup()
    return found.to_numpy(dtype=np.int64)


def _outcome(outcomes: pa.Table) -> Floats:
    found: Floats = outcomes["outcome"].to_numpy()
    return found


def _with(outcomes: pa.Table, values: npt.NDArray) -> pa.Table:
    """The same table with other outcomes."""
    place = outcomes.column_names.index("outcome")
    return outcomes.set_column(place, "outcome", pa.array(np.asarray(values, np.float64)))


def _resampled(outcomes: pa.Table, generator: np.random.Generator) -> pa.Table:
    """As many groups with replacement; each copy is a group with items of its own."""
    groups = pd.factorize(outcomes["unit"].to_numpy())[0]
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    chosen = generator.integers(len(counts), size=len(counts))
    starts = (np.cumsum(counts) - counts)[chosen]
    copy = np.repeat(np.arange(len(chosen)), counts[chosen])
    first = np.cumsum(counts[chosen]) - counts[chosen]
    drawn = outcomes.take(order[starts[copy] + np.arange(len(copy)) - first[copy]])
    names = pc.binary_join_element_wise(drawn["item_id"], pa.array(copy).cast(pa.string()), "#")
    drawn = drawn.set_column(drawn.column_names.index("item_id"), "item_id", names)
    return drawn.set_column(drawn.column_names.index("unit"), "unit", pa.array(copy, pa.int64()))
