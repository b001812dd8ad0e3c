"""Read csv, jsonl and parquet files as columns of text, in batches, under the names that the file itself uses.

Only the columns that the mapping asks for are kept. A file that is cut off, not UTF-8 or of the wrong type is refused
with one `UserError` that names it and the line.
"""

from __future__ import annotations

import codecs
import csv
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import reports, schema
from data.hostile import MAX_FIELD, check_parquet, guarded
from data.mapping import CatalogMapping
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".jsonl", ".parquet")
BATCH = 1 << 14  # rows held as Python values before they become Arrow columns
NAMED = 40  # columns of a file that a message names


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a table.

    Attributes:
        name: what messages call it.
        header: the names of its columns (of a jsonl file, which has no header, the first that were seen).
        source: the columns that the mapping reads, as strings under the file's own names, null where a row lacks one.
        lines: int64 (rows,), from 1.
    """

    name: str
    header: list[str]
    source: pa.Table
    lines: np.ndarray

    @property
    def size(self) -> int:
        """How many lines the file has: where the next part's begin."""
        return int(self.lines[-1]) if len(self.lines) else 0


def read(path: Path, name: str, mapping: CatalogMapping) -> Part:
    """One file, called `name` in messages."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    return readers[path.suffix.lower()](path, name, mapping)


class Columns:
    """Rows of text gathered into Arrow columns; a row may lack columns that others have."""

    def __init__(self, name: str, mapping: CatalogMapping) -> None:
        self.name = name
        self.read_as = functools.cache(lambda key: tuple(mapping.find_columns([key])))  # empty: nothing reads it
        self.id_name = mapping.columns.get("id", "id")
        self.header: dict[str, None] = {}
        self._rows: list[dict[str, str]] = []
        self._batch: list[int] = []
        self._tables: list[pa.Table] = []
        self._lines: list[np.ndarray] = []

    def add(self, line: int, row: dict[str, str]) -> None:
        for key, text in row.items():
            if len(text) > MAX_FIELD:
                raise UserError(
                    f"{self.name}: line {line}, `{key}` has {len(text):,} characters, more than {MAX_FIELD:,}; a quote "
                    "may be missing. Export the table again."
                )
        self._rows.append(row)
        self._batch.append(line)
        if len(self._rows) == BATCH:
            self._flush()

    def add_json(self, line: int, raw: bytes, where: str, key: str = "") -> None:
        """One JSON object, `key` its id if it states none.

        Raises `UserError` naming `where` if it is no object, or a field that is read holds neither text nor number.
        """
        row = _json_object(raw, where)
        if len(self.header) < NAMED:
            self.header |= dict.fromkeys(row)
        read = {name: _json_text(row[name], name, where, kinds) for name in row if (kinds := self.read_as(name))}
        if key and not any(text and "id" in self.read_as(name) for name, text in read.items()):
            read[self.id_name] = key
        self.add(line, read)

    def part(self) -> Part:
        """Everything added."""
        import pyarrow as pa

        self._flush()
        table = pa.concat_tables(self._tables, promote_options="default")
        return Part(name=self.name, header=list(self.header), source=table, lines=np.concatenate(self._lines))

    def _flush(self) -> None:
        import pyarrow as pa

        names = {key: None for row in self._rows for key in row}
        columns = {key: pa.array([row.get(key) for row in self._rows], pa.string()) for key in names}
        self._tables.append(pa.table(columns))
        self._lines.append(np.array(self._batch, np.int64))
        self._rows, self._batch = [], []


def _read_csv(path: Path, name: str, mapping: CatalogMapping) -> Part:
    csv.field_size_limit(MAX_FIELD)
    columns = Columns(name, mapping)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = _csv_rows(csv.reader(stream, strict=True), name)
        _, header = next(rows, (0, []))
        if not header:
            raise UserError(f"{name}: the file is empty; a table starts with a header line.")
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            named = ", ".join(repr(reports.quoted(column)) for column in repeated[:NAMED])
            raise UserError(f"{name}: the header names {named} twice; rename one of them.")
        columns.header = dict.fromkeys(header)
        wanted = set(mapping.find_columns(header).values())
        kept = [(index, column) for index, column in enumerate(header) if column in wanted]
        for line, row in rows:
            if len(row) != len(header):
                raise UserError(
                    f"{name}: line {line} has {len(row)} fields, the header has {len(header)}; the file may be cut off "
                    "or a comma unquoted. Export it again."
                )
            columns.add(line, {column: row[index] for index, column in kept})
    return columns.part()


def _csv_rows(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of every non-empty row."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 near line {line} ({error.reason}); save it as UTF-8.") from None
        except csv.Error as error:
            raise UserError(f"{name}: line {line} is not valid CSV ({error}); export the file again.") from None
        if row:
            yield line, row


def _read_jsonl(path: Path, name: str, mapping: CatalogMapping) -> Part:
    columns = Columns(name, mapping)
    with path.open("rb") as stream:  # as text, a lone carriage return would end a line
        for line, raw in enumerate(stream, start=1):
            if raw.strip():
                columns.add_json(line, raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw, f"{name}: line {line}")
    return columns.part()


def _json_object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}); it may be cut off.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object; write one object per line.")
    return row


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


def _json_text(value: Any, key: str, where: str, read_as: tuple[str, ...]) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{where}, `{key}`: half a Unicode character (\\ud800-\\udfff); mend the text.")
        return value
    if isinstance(value, bool) and schema.WITHDRAWN in read_as:
        return str(value).lower()
    if isinstance(value, int) and not isinstance(value, bool) and _may_be_number(read_as):
        return str(value)
    expected = "a number" if _may_be_number(read_as) else "text"
    raise UserError(f"{where}, `{key}`: expected {expected}, found {str(value)[:80]}; put it in quotes.")


def _may_be_number(read_as: tuple[str, ...]) -> bool:
    return any(name in ("id", "year", schema.WITHDRAWN) for name in read_as)


def _read_parquet(path: Path, name: str, mapping: CatalogMapping) -> Part:
    import pyarrow as pa

    fields = {field.name: field.type for field in parquet_columns(path, name)}
    found = mapping.find_columns(fields)
    if schema.IMAGE in found and is_binary(fields[found[schema.IMAGE]]):
        del found[schema.IMAGE]  # the pictures themselves
    read_as: dict[str, list[str]] = {}
    for column, source in found.items():
        read_as.setdefault(source, []).append(column)
    table = read_parquet(path, name, list(read_as))
    columns = {key: _as_text(table[key], key, tuple(names), name) for key, names in read_as.items()}
    lines = np.arange(1, len(table) + 1, dtype=np.int64)
    return Part(name=name, header=list(fields), source=pa.table(columns), lines=lines)


def parquet_columns(path: Path, name: str) -> pa.Schema:
    """The Arrow schema of a parquet file. Raises `UserError` if its footer cannot be read."""
    import pyarrow.parquet as pq

    return guarded(lambda: pq.read_schema(path), name)


def read_parquet(path: Path, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a parquet file. Raises `UserError` if it is cut off, damaged, or unfolds to too much."""
    import pyarrow.parquet as pq

    check_parquet(path, name, columns)

    def read() -> pa.Table:
        table = pq.read_table(path, columns=columns)
        table.validate(full=True)  # text that is not UTF-8 would surface only when it is used
        return table

    return guarded(read, name)


def is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _as_text(column: pa.ChunkedArray, key: str, read_as: tuple[str, ...], name: str) -> pa.ChunkedArray:
    """A parquet column as strings, whole numbers without a point. Raises `UserError` for any other type."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind) and schema.WITHDRAWN in read_as:
        return column.cast(pa.string())
    if _may_be_number(read_as) and pa.types.is_floating(kind):
        column = _whole_numbers(column)
    if pa.types.is_integer(column.type) and _may_be_number(read_as):
        return column.cast(pa.string())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise UserError(f"{name}: column `{key}` has the type {kind}, expected text; write it as strings.")
    return column.cast(pa.string())


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The floats that some writers make of integers with gaps (NaN stands for a gap) as integers; others unchanged."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.if_else(pc.is_nan(column), None, column)
    try:
        return known.cast(pa.int64())
    except pa.ArrowInvalid:  # a fraction, an infinity, or too large to be exact
        return column
