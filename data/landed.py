"""Write a validated drop: accepted, quarantined and withdrawn rows, and the report of what became of each."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data import reports, schema
from data.drop_store import PRODUCTS, WITHDRAWN, standing
from data.drops import Drop
from data.expectations import Finding
from data.mapping import FASHION
from data.mapping import FILE as MAPPING
from data.params import UserError, canonical

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 512  # rows written at a time: what bounds memory, whatever the drop's size
READ = 4096  # rows turned into Python values at a time
REPORT_EXAMPLES = 20
CHANGES = ("new", "changed", "unchanged", "withdrawn", "withdrawn_unknown")
Refused = dict[int, list[tuple[str, str]]]


def reasons(findings: Sequence[Finding], drop: Drop) -> Refused:
    """{row position: [(rule name, message)]} of every row that breaks a critical rule."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for finding in findings:
        if finding.rule.severity == "critical":
            for row, value in finding.pairs():
                said = f" ({reports.quoted(value)})" if isinstance(value, str) else ""
                found[row].append((finding.rule.name, f"{drop.where(row)}: {finding.rule.description}{said}"))
    return dict(found)


def write(folder: Path, drop: Drop, pictures: pa.Table, refused: Refused, progress: Any) -> None:
    """Write products.parquet, quarantine.parquet and withdrawn.parquet into `folder`, rows in the drop's order.

    A mapping other than the default one is kept beside them. Raises `UserError` if a picture is no longer the one that
    was examined.
    """
    rows = progress(_rows(drop, pictures), total=len(drop), what="rows")
    with (
        _Writer(folder / PRODUCTS, schema.products_schema()) as products,
        _Writer(folder / "quarantine.parquet", schema.quarantine_schema()) as quarantine,
    ):
        for row, text, picture in rows:
            if row in refused:
                quarantine.add(_refused(drop, row, text, picture, refused[row]))
            else:
                products.add(_product(drop, row, text, picture))
    _write_withdrawn(folder / WITHDRAWN, drop)
    if drop.mapping != FASHION:
        content = yaml.safe_dump(canonical(drop.mapping), allow_unicode=True, sort_keys=False)
        (folder / MAPPING).write_text(content, encoding="utf-8")


def changes(folder: Path, drop: Drop, place: int) -> dict[str, int]:
    """What the drop in `folder` does to the catalog that the drops before number `place` left.

    Accepted rows whose product is new, changed, or the same in every column and picture; products withdrawn; and
    withdrawals of products that the catalog did not have.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(folder / PRODUCTS, columns=["id", "row_id"])
    rows = dict(zip(table["id"].to_pylist(), table["row_id"].to_pylist(), strict=True))
    gone = set(drop.table.withdrawn["id"].to_pylist())
    before = standing(drop.mapping.catalog, rows.keys() | gone, place)
    same = sum(before.get(product) == row_id for product, row_id in rows.items())
    new = sum(product not in before for product in rows)
    counts = (new, len(rows) - new - same, same, len(gone), len(gone - before.keys()))
    return dict(zip(CHANGES, counts, strict=True))


def report(
    drop: Drop,
    findings: Sequence[Finding],
    refused: Refused,
    place: int,
    changed: Mapping[str, int],
    drifted: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of report.json: what was accepted, what was not and why, and the count of every rule.

    `place` is the drop's number in the order of landing: of two rows with one id, the later drop's counts. `changed` is
    what `changes` found, `drifted` how far the drop is from the last dataset, feature by feature.
    """
    return {
        "name": drop.name, "drop_id": drop.drop_id, "content_hash": drop.content_hash, "landed": place,
        "schema_version": schema.VERSION, "catalog": drop.mapping.catalog, "table": drop.table.name,
        "files": len(drop.files), "rows": len(drop), "accepted": len(drop) - len(refused), "quarantined": len(refused),
        **changed, "drift": list(drifted),
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
    ids = drop.table.rows["id"]
    return [reports.quoted(ids[row].as_py()) for row in finding.rows[:REPORT_EXAMPLES].tolist()]


def _by_rule(findings: Iterable[Finding], severity: str) -> dict[str, int]:
    return {f.rule.name: f.count for f in findings if f.count and f.rule.severity == severity}


Row = tuple[int, dict[str, str], dict[str, Any]]  # position, texts by column, picture as `expectations.Picture`


def _rows(drop: Drop, pictures: pa.Table) -> Iterator[Row]:
    """Every row of the drop, a few thousand of them in memory."""
    texts = drop.table.rows.select(schema.NAMES)
    for start in range(0, len(drop), READ):
        batch = zip(texts.slice(start, READ).to_pylist(), pictures.slice(start, READ).to_pylist(), strict=True)
        for row, (text, picture) in enumerate(batch, start=start):
            yield row, text, picture


def _product(drop: Drop, row: int, text: dict[str, str], picture: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {name: schema.value(given) for name, given in text.items()}
    values["year"] = schema.year(text["year"])
    return {**_identity(drop, row, text, picture), **values, **_image(drop, row, picture)}


def _refused(
    drop: Drop, row: int, text: dict[str, str], picture: dict[str, Any], why: list[tuple[str, str]]
) -> dict[str, Any]:
    told = {"reasons": [rule for rule, _ in why], "messages": [message for _, message in why]}
    return {**_identity(drop, row, text, picture), **text, **_image(drop, row, picture), **told}


def _identity(drop: Drop, row: int, text: dict[str, str], picture: dict[str, Any]) -> dict[str, Any]:
    catalog = drop.mapping.catalog
    return {
        "row_id": schema.row_id(text, picture["sha256"], catalog), "drop_id": drop.drop_id, "catalog": catalog,
        "row": int(drop.table.lines[row]),
    }  # fmt: skip


def _image(drop: Drop, row: int, picture: dict[str, Any]) -> dict[str, Any]:
    facts = {
        "image_sha256": picture["sha256"], "image_key": picture["key"],
        "width": picture["width"], "height": picture["height"], "mode": picture["mode"],
    }  # fmt: skip
    place = drop.places[row]
    if place is None or picture["sha256"] is None:
        return {"image": None, **facts}
    image = place.read()
    if hashlib.sha256(image).hexdigest() != picture["sha256"]:
        raise UserError(f"{drop.where(row)}: the image changed while it was read; land the drop when it has arrived.")
    return {"image": image, **facts}


def _write_withdrawn(path: Path, drop: Drop) -> None:
    gone = drop.table.withdrawn.to_pylist()
    with _Writer(path, schema.withdrawn_schema()) as writer:
        for row in gone:
            writer.add({"catalog": drop.mapping.catalog, "drop_id": drop.drop_id, **row})


class _Writer(contextlib.AbstractContextManager["_Writer"]):
    """A parquet file written `BATCH` rows at a time."""

    def __init__(self, path: Path, columns: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # JPEG bytes do not compress and hardly repeat; everything else does both.
        texts = [name for name in columns.names if pa.types.is_string(columns.field(name).type)]
        compression = {name: "none" if name == schema.IMAGE else "zstd" for name in columns.names}
        self._columns = columns
        self._file = pq.ParquetWriter(path, columns, compression=compression, use_dictionary=texts)
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rows and kind is None:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._columns), row_group_size=BATCH)
        self._rows = []
