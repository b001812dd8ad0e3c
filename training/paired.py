"""Two models' outcomes item by item, and what must hold of them before they may decide anything.

A missing item, a score that is no number or a changed list of items is a failure of the evaluation, never a score.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.params import UserError
from data.record import Record
from training.outcomes import SCHEMA, Benchmark, cells, column

Cells = Mapping[tuple[str, str], pa.Table]
NAMED = 3  # items that an error lists


def read_outcomes(path: Path) -> pa.Table:
    """The outcomes table of a file. Raises `UserError` if it is not one, naming the column that differs."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not a parquet file of outcomes ({error}). {_cure(path)}") from None
    for field in SCHEMA:
        if field.name not in table.column_names or table.schema.field(field.name).type != field.type:
            raise UserError(f"{path}: column `{field.name}` is missing or not of type {field.type}. {_cure(path)}")
    return table.select(SCHEMA.names)


def demand_sound(outcomes: pa.Table, path: Path, benchmarks: Mapping[str, Benchmark], suites: Path) -> None:
    """Every metric that the gate compares, on exactly the items and families of the suites, as numbers from 0 to 1.

    Raises `UserError` naming `path`, where the outcomes are from, with the metric and the items at fault.
    """
    found = cells(outcomes)
    for name, benchmark in benchmarks.items():
        items = benchmark.items(suites)
        expected = dict(zip(items["item_id"].to_pylist(), items["group"].to_pylist(), strict=True))
        for metric in (*benchmark.gate_metrics, *([benchmark.control] if benchmark.control else [])):
            where = f"{path}: {name} {metric}"
            if (name, metric) not in found:
                raise UserError(f"{where} is missing. {_cure(path)}")
            problem = _wrong_items(found[name, metric], expected) or _wrong_values(found[name, metric])
            if problem:
                raise UserError(f"{where} {problem}. {_cure(path)}")


def demand_recorded(outcomes: pa.Table, path: Path, made: Record) -> None:
    """The means of the outcomes are those that the evaluation's record states. Raises `UserError` naming the metric."""
    for (name, metric), cell in cells(outcomes).items():
        stated, mean = made.summary.get(f"{name}/{metric}"), float(column(cell, "outcome").mean())
        if stated is not None and not abs(stated - mean) < 1e-5:  # it is stated to six decimals; not NaN either
            raise UserError(
                f"{path}: {name} {metric} is {mean:.6f} by the outcomes, but {stated:.6f} by the record beside them; "
                f"one of the two was changed. {_cure(path)}"
            )


def paired(ours: Cells, theirs: Cells, key: tuple[str, str]) -> tuple[pa.Table, pa.Table]:
    """Both models' rows of one metric, item by item. Raises `UserError` if they differ in items or families."""
    name = " ".join(key)
    for whose, found in (("challenger", ours), ("champion", theirs)):
        if key not in found:
            raise UserError(f"{name}: the {whose}'s outcomes lack it. Evaluate it again with `dvc repro -f`.")
        ids = found[key]["item_id"].to_pylist()
        problem = _wrong_values(found[key]) or _twice(ids)
        if problem:
            raise UserError(f"{name}: the {whose} {problem}. Evaluate it again with `dvc repro -f`.")
    a, b = ours[key], theirs[key]
    for part in ("item_id", "unit"):
        if a[part].to_pylist() != b[part].to_pylist():
            odd = _some(set(a[part].to_pylist()) ^ set(b[part].to_pylist()))
            raise UserError(
                f"{name}: challenger and champion were not scored on the same items ({part}, for example {odd}). "
                "Evaluate both on the present suites with `dvc repro`."
            )
    return a, b


def _wrong_items(cell: pa.Table, expected: Mapping[str, int]) -> str | None:
    """What is wrong with the items of one metric, given {item: family} of its suite."""
    ids, units = cell["item_id"].to_pylist(), cell["unit"].to_pylist()
    if problem := _twice(ids):
        return problem
    if absent := set(expected) - set(ids):
        return f"lacks {len(absent):,} of the suite's {len(expected):,} items: {_some(absent)}"
    if foreign := set(ids) - set(expected):
        return f"has {len(foreign):,} items that the suite does not have: {_some(foreign)}"
    moved = [item for item, unit in zip(ids, units, strict=True) if unit != expected[item]]
    return f"puts {len(moved):,} items into another family than the suite: {_some(moved)}" if moved else None


def _twice(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    again = {item for item in ids if item in seen or seen.add(item)}  # type: ignore[func-returns-value]
    return f"has {len(again):,} items more than once: {_some(again)}" if again else None


def _wrong_values(cell: pa.Table) -> str | None:
    ids, values = np.array(cell["item_id"].to_pylist()), column(cell, "outcome")
    lost = ~np.isfinite(values.astype(np.float64))
    if lost.any():
        return f"has outcomes that are not numbers (NaN or infinite): {_some(ids[lost].tolist())}"
    outside = (values < 0) | (values > 1)
    return f"has outcomes outside 0 to 1: {_some(ids[outside].tolist())}" if outside.any() else None


def _some(items: Collection[object]) -> str:
    named = ", ".join(sorted(map(str, items))[:NAMED])
    return f"{named}, …" if len(items) > NAMED else named


def _cure(path: Path) -> str:
    return f"Evaluate the model again (`dvc repro -f evaluate@{path.parent.name}`)."
