"""Read the table of a drop (csv, jsonl or parquet) as text, or refuse it with the file, the line and the cure.

Everything is text and nothing is guessed: `NA` stays the text `NA`, an id keeps its leading zeros, an empty or null
field is the empty string. Validation counts these before they become nulls. Rows are kept as Arrow columns, a million
of them in a few hundred megabytes.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data import caption, drop_sources, reports, schema
from data.drop_sources import Part
from data.mapping import FASHION, CatalogMapping
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1 << 16  # rows turned into Python values at a time
CAPTIONS = 1 << 16  # distinct attribute combinations whose caption is remembered
YES, NO = ("true", "yes", "1"), ("", "false", "no", "0")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: what it offers in `rows`, what it takes back in `withdrawn`.

    Attributes:
        rows: string columns without nulls, one per schema column, and `image` and `shard` if the source has them.
        lines: int64 (rows,), the line an editor shows for each; parquet rows and WebDataset samples count from 1.
        withdrawn: `id` and `row` (its line) of the products that are taken off the catalog.
        parts: (first line, name) of the files that make up the table, in order.
        catalog: the name that its mapping gives it.
    """

    rows: pa.Table
    lines: np.ndarray
    withdrawn: pa.Table
    parts: Sequence[tuple[int, str]]
    catalog: str

    @property
    def name(self) -> str:
        first = self.parts[0][1]
        return first if len(self.parts) == 1 else f"{first} and {len(self.parts) - 1} more"

    @property
    def columns(self) -> Mapping[str, list[str]]:
        """The columns as Python lists, for small tables."""
        return {name: self.rows[name].to_pylist() for name in self.rows.column_names}

    def where(self, line: int) -> str:
        """`drop/catalog.csv line 17`: how messages name a row."""
        first, name = self.parts[bisect.bisect([first for first, _ in self.parts], line) - 1]
        return f"{name} line {line - first + 1}"


def read_table(path: Path, name: str, mapping: CatalogMapping = FASHION) -> Table:
    """The table at `path`, called `name` in messages. Raises `UserError` if it is not what the schema asks for."""
    return table_of([drop_sources.read(path, name, mapping)], mapping)


def table_of(parts: Sequence[Part], mapping: CatalogMapping) -> Table:
    """One table of the parts as read. Raises `UserError` if a column that the mapping requires is missing."""
    import pyarrow as pa

    name = parts[0].name
    lines, listed = _lines(parts)
    if not len(lines):
        raise UserError(f"{name}: the table has no rows; a drop needs at least one product.")
    source = pa.concat_tables([part.source for part in parts], promote_options="default")
    source = pa.table({key: _filled(source[key]) for key in source.column_names})
    found = mapping.find_columns(source.column_names)
    gone = _withdrawn(source, found, lines, listed)
    _check_columns(found, parts[0].header, ("id",) if gone.all() else mapping.required, name, mapping)
    offered = source.filter(pa.array(~gone)) if gone.any() else source
    table = Table(
        rows=_schema_columns(offered, found, mapping), lines=lines[~gone], parts=listed, catalog=mapping.catalog,
        withdrawn=_taken_back(source, found, mapping, gone, lines),
    )  # fmt: skip
    _check_years(table)
    _check_withdrawn(table)
    return table


def _lines(parts: Sequence[Part]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """The parts' lines, counted on from part to part, and (first line, name) of each."""
    listed, lines, first = [], [], 1
    for part in parts:
        listed.append((first, part.name))
        lines.append(part.lines + first - 1)
        first += part.size
    return np.concatenate(lines), listed


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(column.cast(pa.string()), "")


def _check_columns(
    found: Mapping[str, str], header: Sequence[str], required: Sequence[str], name: str, mapping: CatalogMapping
) -> None:
    for column in required:
        if column not in found:
            meaning = schema.BY_NAME[column].meaning
            called = f", `{mapping.columns[column]}` by the mapping," if column in mapping.columns else ""
            raise UserError(
                f"{name}: column `{column}` ({meaning}){called} is missing; the table has "
                f"{', '.join(repr(reports.quoted(name)) for name in header[: drop_sources.NAMED])}. "
                "Add the column, rename the one that holds it, or say which it is in a mapping.yaml."
            )


def _schema_columns(source: pa.Table, found: Mapping[str, str], mapping: CatalogMapping) -> pa.Table:
    """The schema's columns in its order, as the mapping reads them; what the source lacks is empty."""
    import pyarrow as pa

    columns = {}
    for name in schema.NAMES:
        if name in found:
            columns[name] = _converted(source[found[name]], mapping.converter(name))
        else:
            value = mapping.constants.get(name, "")
            columns[name] = pa.chunked_array([pa.repeat(value, len(source))], pa.string())
    columns |= {name: source[found[name]] for name in (schema.IMAGE, schema.SHARD) if name in found}
    return _with_captions(pa.table(columns), mapping)


def _converted(column: pa.ChunkedArray, convert: Callable[[str], str] | None) -> pa.ChunkedArray:
    """The column with every distinct value converted once a chunk."""
    import pyarrow as pa

    if convert is None:
        return column
    chunks = []
    for chunk in column.chunks:
        coded = chunk.dictionary_encode()
        values = pa.array([convert(text) for text in coded.dictionary.to_pylist()], pa.string())
        chunks.append(values.take(coded.indices))
    return pa.chunked_array(chunks, pa.string())


def _with_captions(rows: pa.Table, mapping: CatalogMapping) -> pa.Table:
    """`derived_caption` put together where the source leaves it out."""
    import pyarrow as pa

    names = sorted({part.name for part in caption.parts(mapping.caption)})

    @functools.lru_cache(maxsize=CAPTIONS)
    def derive(*values: str) -> str:
        return mapping.derive_caption(dict(zip(names, values, strict=True)))

    chunks = []
    for batch in batches(rows.select(["derived_caption", *names])):
        given, *values = (column.to_pylist() for column in batch.columns)
        made = (derive(*row) for row in zip(*values, strict=True))
        chunks.append(pa.array([text or own for text, own in zip(given, made, strict=True)], pa.string()))
    position = rows.column_names.index("derived_caption")
    return rows.set_column(position, "derived_caption", pa.chunked_array(chunks, pa.string()))


def batches(rows: pa.Table, size: int = BATCH) -> Iterator[pa.Table]:
    """The rows in order, `size` at a time."""
    return (rows.slice(start, size) for start in range(0, len(rows), size))


def _withdrawn(
    source: pa.Table, found: Mapping[str, str], lines: np.ndarray, parts: Sequence[tuple[int, str]]
) -> np.ndarray:
    """bool (rows,): which rows take their product off the catalog."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if schema.WITHDRAWN not in found:
        return np.zeros(len(lines), bool)
    said = pc.utf8_lower(pc.utf8_trim_whitespace(source[found[schema.WITHDRAWN]]))
    unclear = pc.index(pc.is_in(said, pa.array([*YES, *NO])), False).as_py()
    if unclear >= 0:
        where = Table(rows=source, lines=lines, withdrawn=source, parts=parts, catalog="").where(int(lines[unclear]))
        raise UserError(
            f"{where}, `{schema.WITHDRAWN}`: {said[unclear].as_py()[:40]!r} is neither true nor false; write true for "
            "a product that is taken off the catalog, and nothing for the others."
        )
    return pc.is_in(said, pa.array(YES)).to_numpy()


def _taken_back(
    source: pa.Table, found: Mapping[str, str], mapping: CatalogMapping, gone: np.ndarray, lines: np.ndarray
) -> pa.Table:
    """`id` and `row` of the withdrawn products, the first line of each."""
    import pyarrow as pa

    if not gone.any():
        return pa.table({"id": pa.array([], pa.string()), "row": pa.array([], pa.int64())})
    ids = _converted(source[found["id"]], mapping.converter("id")).filter(pa.array(gone))
    table = pa.table({"id": ids, "row": lines[gone]})
    return table.group_by("id", use_threads=False).aggregate([("row", "min")]).rename_columns(["id", "row"])


def _check_withdrawn(table: Table) -> None:
    """A withdrawal names its product, and a product is either offered or withdrawn."""
    import pyarrow.compute as pc

    blank = pc.index(pc.equal(pc.utf8_trim_whitespace(table.withdrawn["id"]), ""), True).as_py()
    if blank >= 0:
        where = table.where(table.withdrawn["row"][blank].as_py())
        raise UserError(f"{where}, `id`: empty in a withdrawn row; name the product that is withdrawn.")
    both = pc.index(pc.is_in(table.rows["id"], table.withdrawn["id"].combine_chunks()), True).as_py()
    if both >= 0:
        product = table.rows["id"][both].as_py()
        raise UserError(
            f"{table.where(int(table.lines[both]))}: product {product!r} is offered here and withdrawn in the same "
            "table; leave one of the two rows out."
        )


def _check_years(table: Table) -> None:
    """A few odd years are rows for quarantine; a column that mostly holds something else is the wrong column."""
    import pyarrow.compute as pc

    column = table.rows["year"]
    counts = {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist() if item["values"]}
    odd = {text: n for text, n in counts.items() if text != schema.NOT_AVAILABLE and schema.year(text) is None}
    if sum(odd.values()) * 2 > sum(counts.values()):
        first, value = min((pc.index(column, text).as_py(), text) for text in odd)
        raise UserError(
            f"{table.name}: column `year` is not a year in {sum(odd.values())} of {sum(counts.values())} rows "
            f"(line {table.lines[first]}: {value[:40]!r}); the columns may be shifted. Export the table again with "
            "years such as 2016."
        )
