"""Which rows stand behind an output: the products of a dataset, and where in the drops each of them came from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.archive import Place
from data.params import UserError
from data.schema import CATALOG

PRODUCTS, QUARANTINE, WITHDRAWN = "products.parquet", "quarantine.parquet", "withdrawn.parquet"
HELD_BACK = "held_back.parquet"  # rows of a dataset that are in none of its splits
COLUMNS = ("catalog", "id", "row_id", "drop_id", "split")  # what is kept of a dataset: enough to say who is in it
Row = dict[str, Any]


def members(dataset: Place) -> pa.Table:
    """(catalog, id, row_id, drop_id, split) of every product of a dataset; an empty table if its rows are not here."""
    path = dataset.path(PRODUCTS)
    return _read(path, COLUMNS) if path else pa.table({name: pa.array([], pa.string()) for name in COLUMNS})


def write(table: pa.Table, path: Path) -> None:
    """Write what `members` gave; equal rows give equal bytes."""
    pq.write_table(table, path, compression="zstd")


def read(path: Path) -> pa.Table:
    """What `write` has written."""
    return _table(path)


def products(dataset: Place, ids: Collection[str], catalog: str | None = None) -> list[Row]:
    """The rows of `store/dataset` with these product ids, whole."""
    path = dataset.path(PRODUCTS)
    return _select(path, "id", ids, catalog=catalog) if path else []


def held_back(dataset: Place, ids: Collection[str], catalog: str | None = None) -> list[Row]:
    """The rows of a dataset that name these products and were put in no split."""
    path = dataset.path(HELD_BACK)
    return _select(path, "id", ids, catalog=catalog) if path else []


def of_picture(dataset: Place, keys: Collection[str]) -> list[Row]:
    """The products that show one of these pictures."""
    path = dataset.path(PRODUCTS)
    return _select(path, "image_key", keys) if path else []


def count_rows(path: Path | None, column: str, values: Collection[str]) -> int:
    """How many rows of a table have one of `values` in `column`; 0 if the table or the column is not there."""
    if path is None or column not in _names(path):
        return 0
    return int(_table(path, [column], [(column, "in", list(values))]).num_rows)


def values(path: Path | None, column: str) -> list[Any]:
    """The values of one column of a table; none if the table or the column is not there."""
    return _table(path, [column])[column].to_pylist() if path and column in _names(path) else []


def sources(drops: Iterable[Place], ids: Collection[str], catalog: str | None = None) -> list[Row]:
    """Every row of these drops that names one of the products, in the order of `drops`.

    Each is {catalog, id, title, row_id, drop_id, row, state, drop, table, content, reasons}: `row` is the line of the
    drop's table, `content` the hash of the drop as it arrived, `state` accepted, quarantined or withdrawn.
    """
    return [row for place in drops for row in _of_drop(place, ids, catalog)]


def all_ids(drops: Iterable[Place]) -> set[tuple[str, str]]:
    """(catalog, id) of every row that any of these drops holds."""
    found: set[tuple[str, str]] = set()
    for place in drops:
        for name in (PRODUCTS, QUARANTINE, WITHDRAWN):
            if path := place.path(name):
                table = _read(path, ("catalog", "id"))
                found |= set(zip(table["catalog"].to_pylist(), table["id"].to_pylist(), strict=True))
    return found


def _of_drop(place: Place, ids: Collection[str], catalog: str | None) -> list[Row]:
    assert place.record is not None
    told = {
        "drop": place.record.summary.get("name"), "place": place.name,
        "content": place.record.parameters.get("content"),
    }  # fmt: skip
    rows = []
    for name, state in ((PRODUCTS, "accepted"), (QUARANTINE, "quarantined"), (WITHDRAWN, "withdrawn")):
        path = place.path(name)
        for row in _select(path, "id", ids, skip=("image",), catalog=catalog) if path else ():
            kept = {key: row.get(key) for key in ("catalog", "id", "title", "row_id", "drop_id", "row", "reasons")}
            rows.append({**kept, **told, "state": state})
    return rows


def _select(
    path: Path, column: str, values: Collection[str], skip: Sequence[str] = (), catalog: str | None = None
) -> list[Row]:  # fmt: skip
    names = [name for name in _names(path) if name not in skip]
    rows = _table(path, names, [(column, "in", list(values))]).to_pylist()
    rows = [{"catalog": CATALOG, **row} for row in rows]
    return [row for row in rows if catalog in (None, row["catalog"])]


def _read(path: Path, wanted: Sequence[str]) -> pa.Table:
    """Columns of a table as text; a table from before catalogs had names is the fashion catalog's."""
    present = _names(path)
    table = _table(path, [name for name in wanted if name in present])
    columns = {}
    for name in wanted:
        given = CATALOG if name == "catalog" else None
        columns[name] = (
            pc.cast(table[name], pa.string()) if name in present else pa.array([given] * table.num_rows, pa.string())
        )
    return pa.table(columns)


def _names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _table(path: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, filters=filters)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a table that can be read ({error}). `fittingroom trace {path.parent}` says more.")
