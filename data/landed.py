"""Write a validated drop: accepted rows, quarantined rows with their reasons, and the report."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import schema
from data.drops import Drop
from data.expectations import Finding, Picture
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 512  # rows written at a time: what bounds memory, whatever the drop's size
REPORT_EXAMPLES = 20


def reasons(findings: Sequence[Finding], drop: Drop) -> dict[int, list[tuple[str, str]]]:
    """{row position: [(rule name, message)]} of every row that breaks a critical rule."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for finding in findings:
        if finding.rule.severity == "critical":
            for row, value in zip(finding.rows, finding.values, strict=True):
                said = f" ({value})" if isinstance(value, str) else ""
                found[row].append((finding.rule.name, f"{drop.where(row)}: {finding.rule.description}{said}"))
    return dict(found)


def write_rows(folder: Path, drop: Drop, pictures: Sequence[Picture], refused: dict[int, list[tuple[str, str]]],
               progress: Any) -> None:  # fmt: skip
    """Write products.parquet and quarantine.parquet into `folder`, rows in the drop's order.

    Raises `UserError` if a picture is no longer the one that was examined.
    """
    accepted = [row for row in range(len(drop)) if row not in refused]
    products = (_product(drop, row, pictures[row]) for row in progress(accepted, what="rows"))
    _write(folder / "products.parquet", schema.products_schema(), products)
    quarantine = (_refused(drop, row, pictures[row], refused[row]) for row in sorted(refused))
    _write(folder / "quarantine.parquet", schema.quarantine_schema(), quarantine)


def report(
    drop: Drop, findings: Sequence[Finding], refused: dict[int, list[tuple[str, str]]], place: int
) -> dict[str, Any]:
    """The content of report.json: what was accepted, what was not and why, and the count of every rule.

    `place` is the drop's number in the order of landing: of two rows with one id, the later drop's counts.
    """
    return {
        "name": drop.name, "drop_id": drop.drop_id, "content_hash": drop.content_hash, "landed": place,
        "schema_version": schema.VERSION, "table": drop.table.name, "files": len(drop.files),
        "rows": len(drop), "accepted": len(drop) - len(refused), "quarantined": len(refused),
        "quarantined_by_rule": _by_rule(findings, "critical"), "warnings_by_rule": _by_rule(findings, "warning"),
        "rules": [
            {
                "name": finding.rule.name, "severity": finding.rule.severity, "count": finding.count,
                "groups": finding.groups, "description": finding.rule.description, "examples": examples(finding, drop),
            }
            for finding in findings
        ],
    }  # fmt: skip


def examples(finding: Finding, drop: Drop) -> list[str]:
    """Up to 20 offending product ids."""
    return [drop.table.columns["id"][row] for row in finding.rows[:REPORT_EXAMPLES]]


def _by_rule(findings: Iterable[Finding], severity: str) -> dict[str, int]:
    return {f.rule.name: f.count for f in findings if f.count and f.rule.severity == severity}


def _product(drop: Drop, row: int, picture: Picture) -> dict[str, Any]:
    text = _text(drop, row)
    values: dict[str, Any] = {name: schema.value(given) for name, given in text.items()}
    values["year"] = schema.year(text["year"])
    return {**_identity(drop, row, text, picture), **values, **_image(drop, row, picture)}


def _refused(drop: Drop, row: int, picture: Picture, why: list[tuple[str, str]]) -> dict[str, Any]:
    text = _text(drop, row)
    told = {"reasons": [rule for rule, _ in why], "messages": [message for _, message in why]}
    return {**_identity(drop, row, text, picture), **text, **_image(drop, row, picture), **told}


def _text(drop: Drop, row: int) -> dict[str, str]:
    return {name: drop.table.columns[name][row] for name in schema.NAMES}


def _identity(drop: Drop, row: int, text: dict[str, str], picture: Picture) -> dict[str, Any]:
    row_id = schema.row_id(text, picture.sha256)
    return {"row_id": row_id, "drop_id": drop.drop_id, "row": drop.table.lines[row]}


def _image(drop: Drop, row: int, picture: Picture) -> dict[str, Any]:
    facts = {
        "image_sha256": picture.sha256, "image_key": picture.key,
        "width": picture.width, "height": picture.height, "mode": picture.mode,
    }  # fmt: skip
    place = drop.places[row]
    if place is None or picture.sha256 is None:
        return {"image": None, **facts}
    image = place.read()
    if hashlib.sha256(image).hexdigest() != picture.sha256:
        raise UserError(f"{drop.where(row)}: the image changed while it was read; land the drop when it has arrived.")
    return {"image": image, **facts}


def _write(path: Path, columns: pa.Schema, rows: Iterator[dict[str, Any]]) -> None:
    import itertools

    import pyarrow as pa
    import pyarrow.parquet as pq

    # JPEG bytes do not compress and hardly repeat; everything else does both.
    texts = [name for name in columns.names if pa.types.is_string(columns.field(name).type)]
    compression = {name: "none" if name == schema.IMAGE else "zstd" for name in columns.names}
    with pq.ParquetWriter(path, columns, compression=compression, use_dictionary=texts) as writer:
        while batch := list(itertools.islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=columns), row_group_size=BATCH)
