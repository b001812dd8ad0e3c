"""Lineage records as what people look at: metadata values, tables and pictures on an asset's page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from data.record import Record
from data.reports import markdown_cell

PICTURE_BYTES = 150_000  # a picture is stored in the event log, so larger ones are scaled down
PICTURE_WIDTH = 900
TABLE_ROWS = 50
ID_DIGITS = 12  # of a record id where people read it
SHOWN_FACTS = ("seconds", "begun", "commit", "device", "machine")


def metadata(folder: Path, record: Record, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a materialization: the summary's numbers, one report page, and where all this lies."""
    shown: dict[str, Any] = {"record": record.id, "trace": f"fittingroom trace {record.id[:ID_DIGITS]}"}
    shown |= {name: value(item) for name, item in record.summary.items()}
    shown["report"] = dg.MetadataValue.md(report(folder, record))
    shown["folder"] = dg.MetadataValue.path(str(folder))
    docs, served = folder / "docs" / "index.html", os.environ.get("FITTINGROOM_DOCS")
    if docs.is_file():
        link = dg.MetadataValue.url(f"{served}/{folder.name}/{docs.name}") if served else None
        shown["data docs"] = link or dg.MetadataValue.path(str(docs))
    shown |= {page.stem: dg.MetadataValue.path(str(page)) for page in sorted(folder.glob("*.html"))}
    shown |= {f"run: {name}": value(facts[name]) for name in SHOWN_FACTS if facts.get(name) is not None}
    return shown


def value(item: Any) -> Any:
    """A summary number, text or nested value in the metadata type that the UI plots or prints best."""
    if isinstance(item, bool):
        return dg.MetadataValue.bool(item)
    if isinstance(item, int):
        return dg.MetadataValue.int(item)
    if isinstance(item, float):
        return dg.MetadataValue.float(item)
    return dg.MetadataValue.json(item) if isinstance(item, (dict, list)) else str(item)


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A typed table of the UI, its first 50 rows."""
    columns = [dg.TableColumn(name, _column_type(row[name] for row in rows)) for name in rows[0]]
    records = [dg.TableRecord({c.name: _cell(row.get(c.name)) for c in columns}) for row in rows[:TABLE_ROWS]]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def report(folder: Path, record: Record) -> str:
    """One markdown page: what made the output, its numbers, its tables and its pictures."""
    parts = [f"## {record.stage}", f"`{record.command}` · record `{record.id[:ID_DIGITS]}`"]
    if record.summary:
        numbers = [{"": name, "value": number} for name, number in record.summary.items()]
        parts.append(markdown_table(numbers))
    for title, rows in record.tables.items():
        parts += [f"### {title}", markdown_table(rows[:TABLE_ROWS])] if rows else []
    for title, path in record.pictures.items():
        parts += [f"### {title}", f"![{title}]({picture(folder / path)})"]
    if record.inputs:
        parts += ["### Made from", markdown_table([_input(item) for item in record.inputs])]
    return "\n\n".join(parts)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a markdown table; columns in the order of the first row."""
    names = list(rows[0])
    lines = [_row(names), _row("---" for _ in names)]
    return "\n".join(lines + [_row(text(row.get(name)) for name in names) for row in rows])


def text(item: Any) -> str:
    """A value as a person writes it: four significant digits, no line breaks, no cell separators, no markup."""
    if isinstance(item, float):
        return f"{item:,.4g}"
    if isinstance(item, int) and not isinstance(item, bool):
        return f"{item:,}"
    if isinstance(item, (list, tuple)):
        return ", ".join(map(text, item))
    if isinstance(item, Mapping):
        return ", ".join(f"{key}: {text(inner)}" for key, inner in item.items())
    return "" if item is None else markdown_cell(str(item))


def picture(path: Path) -> str:
    """A picture file as a data URI, scaled down and re-encoded if it is too heavy for an event log."""
    content = path.read_bytes()
    kind = "jpeg" if path.suffix in (".jpg", ".jpeg") else "png"
    if len(content) > PICTURE_BYTES:
        from PIL import Image

        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80, optimize=True)
        content, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _input(item: Mapping[str, Any]) -> dict[str, str]:
    return {"input": item["path"], "hash": item["hash"][:12], "record": (item["record"] or "")[:12]}


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(item: Any) -> Any:
    return item if item is None or isinstance(item, (str, int, float, bool)) else text(item)


def _column_type(items: Any) -> str:
    kinds = {type(item) for item in items if item is not None}
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"
