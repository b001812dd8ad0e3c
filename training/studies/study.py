"""What a study is, and what its outcomes say: means, paired differences with intervals, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.statistics import estimate

Run = tuple[str, int]  # arm, seed
Key = tuple[str, str, str]  # benchmark, metric, slice ("" for all items)


@dataclass(frozen=True, kw_only=True)
class Study:
    """One claim, put to the test.

    Attributes:
        name, title: of its files and its heading.
        claim: what the paper says, in a sentence.
        arms: {name: what it is}; same data, budget and towers in all of them.
        reference: the arm that the others are compared with; `against` names others for some arms.
        seeds: every arm runs with each.
        run: outcomes (`training.outcomes.SCHEMA`) of one arm and seed on the test items.
        seconds: about how long a run takes on two cores.
        headline: (benchmark, metric, slice) of the numbers that the README and the plot show.
        code: files and folders besides the study's own that its outcomes depend on; a change makes its runs anew.
        data: files besides the inputs of all studies, of which some may be missing here; likewise.
        note: what a reader must know to weigh the numbers.
    """

    name: str
    title: str
    claim: str
    arms: Mapping[str, str]
    reference: str
    run: Callable[[str, int], pa.Table]
    seconds: float
    headline: tuple[Key, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    against: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    data: tuple[Path, ...] = ()
    note: str = ""

    def rivals(self, arm: str) -> tuple[str, ...]:
        """The arms that `arm` is compared with; none for the reference itself."""
        return self.against.get(arm, () if arm == self.reference else (self.reference,))


def analyse(study: Study, runs: Mapping[Run, pa.Table]) -> dict[str, Any]:
    """Every number of a study as plain JSON values, from the outcomes of all its runs.

    An item's outcome is averaged over the seeds. Intervals (95 %) resample product families, as the gate's do, so they
    say how far other products could move the number; `seeds` holds each seed's own value, what another start does.
    """
    cells = {run: _cells(table) for run, table in runs.items()}
    keys = list(dict.fromkeys(key for found in cells.values() for key in found))
    numbers, differences = [], []
    for key in keys:
        means = {arm: _over_seeds(study, arm, key, cells) for arm in study.arms}
        for arm, (values, units, by_seed) in means.items():
            numbers.append({**_label(key), "arm": arm, **_numbers(values, units, (0.0, 1.0)), "seeds": by_seed})
            for rival in study.rivals(arm):
                other, _, other_seeds = means[rival]
                differences.append({
                    **_label(key), "arm": arm, "against": rival, **_numbers(values - other, units, (-1.0, 1.0)),
                    "seeds": [round(a - b, 6) for a, b in zip(by_seed, other_seeds, strict=True)],
                })  # fmt: skip
    return {
        "name": study.name, "title": study.title, "claim": study.claim, "note": study.note, "arms": dict(study.arms),
        "reference": study.reference, "seeds": list(study.seeds), "numbers": numbers, "differences": differences,
    }  # fmt: skip


Floats = npt.NDArray[np.float64]


def _cells(table: pa.Table) -> dict[Key, tuple[npt.NDArray[Any], npt.NDArray[Any], Floats]]:
    """{key: (item ids, units, outcomes), by item id}; every metric as a whole and by slice where it has several."""
    frame = table.select(["benchmark", "metric", "slice", "item_id", "unit", "outcome"]).to_pandas()
    found = {}
    for (benchmark, metric), rows in frame.groupby(["benchmark", "metric"], sort=False):
        parts = {"": rows}
        if rows["slice"].nunique() > 1:
            parts |= {str(name): part for name, part in rows.groupby("slice")}
        for name, part in parts.items():
            ordered = part.sort_values(["item_id", "slice"])
            ids = (ordered["item_id"] + "\0" + ordered["slice"]).to_numpy()
            found[(str(benchmark), str(metric), name)] = (
                ids, ordered["unit"].to_numpy(), ordered["outcome"].to_numpy(np.float64),
            )  # fmt: skip
    return found


def _over_seeds(
    study: Study, arm: str, key: Key, cells: Mapping[Run, Mapping[Key, Any]]
) -> tuple[Floats, npt.NDArray[Any], list[float]]:
    """Outcomes of an arm averaged over seeds (n,), their units, and each seed's mean."""
    first_ids, units, _ = cells[study.reference, study.seeds[0]][key]
    values = []
    for seed in study.seeds:
        ids, _, outcomes = cells[arm, seed].get(key, ((), (), ()))
        if len(ids) != len(first_ids) or (ids != first_ids).any():
            raise UserError(
                f"study {study.name}: arm {arm}, seed {seed} was scored on other items for {'/'.join(key)} than "
                f"{study.reference}; remove runs/studies/{study.name} and run the study again."
            )
        values.append(outcomes)
    stacked = np.stack(values)
    return stacked.mean(0), units, [round(float(v), 6) for v in stacked.mean(1)]


def _numbers(values: Floats, units: npt.NDArray[Any], span: tuple[float, float]) -> dict[str, float]:
    found = estimate(values, units, span)
    return {"value": round(found.value, 6), "low": round(found.low, 6), "high": round(found.high, 6), "n": found.n}


def _label(key: Key) -> dict[str, str]:
    return dict(zip(("benchmark", "metric", "slice"), key, strict=True))
