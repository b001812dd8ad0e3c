"""Read the table of a drop (csv, jsonl or parquet) as text, or refuse it with the file, the line and the cure.

Everything is text and nothing is guessed: `NA` stays the text `NA`, an id keeps its leading zeros, an empty or null
field is the empty string. Validation counts these before they become nulls.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import schema
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: `columns[name][i]` under the schema's names, `lines[i]` the line an editor shows for it.

    In parquet, which has no lines, `lines` counts rows from 1. `image` and `shard` are there if the source has them.
    """

    name: str
    columns: dict[str, list[str]]
    lines: list[int]


def read_table(path: Path, name: str) -> Table:
    """The table at `path`, called `name` in messages. Raises `UserError` if it is not what the schema asks for."""
    readers: dict[str, Callable[[Path, str], tuple[dict[str, list[str]], list[int]]]]
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    source, lines = readers[path.suffix.lower()](path, name)
    if not lines:
        raise UserError(f"{name}: the table has no rows; a drop needs at least one product.")
    found = schema.find_columns(source)
    for column in schema.COLUMNS:
        if column.in_table and column.name not in found:
            raise UserError(
                f"{name}: column `{column.name}` ({column.meaning}) is missing; the table has "
                f"{', '.join(map(repr, source))}. Add the column, or rename the one that holds it."
            )
    columns = {column: source[spelled] for column, spelled in found.items()}
    columns |= {extra: source[extra] for extra in (schema.IMAGE, schema.SHARD) if extra in source}
    table = Table(name=name, columns=columns, lines=lines)
    _check_years(table)
    return _with_captions(table)


def parquet_columns(path: Path, name: str) -> pa.Schema:
    """The Arrow schema of a parquet file. Raises `UserError` if its footer cannot be read."""
    import pyarrow.parquet as pq

    return _guarded(lambda: pq.read_schema(path), name)


def read_parquet(path: Path, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a parquet file. Raises `UserError` if the file is cut off or damaged."""
    import pyarrow.parquet as pq

    def read() -> pa.Table:
        table = pq.read_table(path, columns=columns)
        table.validate(full=True)  # text that is not UTF-8 would surface only when it is used
        return table

    return _guarded(read, name)


def _guarded(read: Callable[[], Any], name: str) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:120]
        raise UserError(f"{name}: not a readable parquet file, it may be cut off ({words}); copy it again.") from None


def _read_csv(path: Path, name: str) -> tuple[dict[str, list[str]], list[int]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        rows = _csv_rows(reader, name)
        _, header = next(rows, (0, []))
        if not header:
            raise UserError(f"{name}: the file is empty; a table starts with a header line.")
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            raise UserError(f"{name}: the header names {', '.join(map(repr, repeated))} twice; rename one of them.")
        lines, kept = [], []
        for line, row in rows:
            if len(row) != len(header):
                raise UserError(
                    f"{name}: line {line} has {len(row)} fields, the header has {len(header)}; the file may be cut off "
                    "or a comma unquoted. Export it again."
                )
            lines.append(line)
            kept.append(row)
    return {column: [row[i] for row in kept] for i, column in enumerate(header)}, lines


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


def _read_jsonl(path: Path, name: str) -> tuple[dict[str, list[str]], list[int]]:
    lines, rows = [], []
    names: dict[str, None] = {}
    try:
        for line, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if not text.strip():
                continue
            row = json.loads(text, parse_constant=_no_constant)
            if not isinstance(row, dict):
                raise UserError(f"{name}: line {line} is not a JSON object; write one object per line.")
            lines.append(line)
            rows.append({key: _json_text(value, key, line, name) for key, value in row.items()})
            names |= dict.fromkeys(row)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: line {len(lines) + 1} is not valid JSON ({error}); it may be cut off.") from None
    return {key: [row.get(key, "") for row in rows] for key in names}, lines


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


def _json_text(value: Any, key: str, line: int, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{name}: line {line}, `{key}`: half a Unicode character (\\ud800-\\udfff); mend the text.")
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _may_be_number(key):
        return str(value)
    if key in _read_names([key]):
        expected = "a number" if _may_be_number(key) else "text"
        raise UserError(f"{name}: line {line}, `{key}`: expected {expected}, found {value!r}; put it in quotes.")
    return ""  # a column that the schema does not know


def _read_parquet(path: Path, name: str) -> tuple[dict[str, list[str]], list[int]]:
    import pyarrow as pa

    fields = {field.name: field.type for field in parquet_columns(path, name)}
    wanted = [n for n in _read_names(fields) if not (n == schema.IMAGE and _is_binary(fields[n]))]
    table = read_parquet(path, name, wanted)
    columns = {}
    for key in wanted:
        kind = table.schema.field(key).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not _is_text(kind) and not (_may_be_number(key) and _is_whole(table[key])):
            raise UserError(f"{name}: column `{key}` has the type {kind}, expected text; write it as strings.")
        columns[key] = [_plain_text(value) for value in table[key].to_pylist()]
    return columns, list(range(1, table.num_rows + 1))


def _read_names(header: Iterable[str]) -> list[str]:
    """The columns of a source that are read: those of the schema, in the source's spelling, and where the image is."""
    header = list(header)
    return [*schema.find_columns(header).values(), *(n for n in (schema.IMAGE, schema.SHARD) if n in header)]


def _may_be_number(key: str) -> bool:
    return any(column in ("id", "year") for column in schema.find_columns([key]))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_whole(column: pa.ChunkedArray) -> bool:
    """Integers, or the floats that some writers make of integers with gaps (NaN stands for a gap then)."""
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return True
    return pa.types.is_floating(column.type) and all(v is None or v != v or v.is_integer() for v in column.to_pylist())


def _plain_text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) else str(value)


def _check_years(table: Table) -> None:
    """A few odd years are rows for quarantine; a column that mostly holds something else is the wrong column."""
    given = [(line, value) for line, value in zip(table.lines, table.columns["year"], strict=True) if value]
    odd = [(line, value) for line, value in given if value != schema.NOT_AVAILABLE and schema.year(value) is None]
    if len(odd) * 2 > len(given):
        line, value = odd[0]
        raise UserError(
            f"{table.name}: column `year` is not a year in {len(odd)} of {len(given)} rows (line {line}: {value!r}); "
            "the columns may be shifted. Export the table again with years such as 2016."
        )


def _with_captions(table: Table) -> Table:
    """`derived_caption` put together where the source leaves it out."""
    size = len(table.lines)
    given = table.columns.get("derived_caption", [""] * size)
    rows = ({name: table.columns[name][i] for name in schema.NAMES if name in table.columns} for i in range(size))
    captions = [caption or schema.derive_caption(row) for caption, row in zip(given, rows, strict=True)]
    return Table(name=table.name, columns=table.columns | {"derived_caption": captions}, lines=table.lines)
