"""Small catalogs for the dataset, negatives and suites tests: rows of the starter catalog, with or without pictures."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data import schema
from data.images import examine

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]


@functools.cache
def starter_rows(drop: str = "drop-1") -> tuple[Mapping[str, Any], ...]:
    """The rows of a starter drop with the columns of the dataset's `products.parquet`, all in train, a group each.

    The file's pictures stand for themselves by the hash of their bytes; rows that share a title share a group.
    """
    folder = ROOT / "data/starter" / drop
    images: dict[str, str] = {}
    for shard in sorted(folder.glob("*.parquet")):
        table = pq.read_table(shard, columns=["id", "image"])
        for name, data in zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True):
            images[name] = hashlib.sha256(data).hexdigest()[:32]
    rows = []
    with (folder / "catalog.csv").open(encoding="utf-8", newline="") as stream:
        for number, source in enumerate(csv.DictReader(stream)):
            names = schema.find_columns(source)
            row = {name: source[spelled] or None for name, spelled in names.items()}
            row = {name: None if value == "NA" else value for name, value in row.items()}
            image_key = images.get(source["id"], f"none-{source['id']}")
            row_id = hashlib.sha256(f"{drop} {source['id']}".encode()).hexdigest()[:16]
            year = int(row["year"]) if row["year"] else None
            rows.append({**row, "year": year, "row_id": row_id, "drop_id": drop, "catalog": schema.CATALOG,
                         "image_key": image_key, "group": number, "split": "train"})  # fmt: skip
    return tuple(rows)


def product(**values: Any) -> Row:
    """One dataset row with plain defaults; `derived_caption` follows the attributes."""
    row: Row = {
        "row_id": "r0", "drop_id": "d", "catalog": schema.CATALOG, "id": "1", "title": None, "gender": "Men",
        "master_category": "Apparel", "sub_category": "Topwear", "article_type": "Tshirts", "base_colour": "White",
        "season": None, "year": None, "usage": "Casual", "image_key": "k0", "group": 0, "split": "train",
    } | values  # fmt: skip
    plain = {name: row[name] or "NA" for name in ("base_colour", "article_type", "gender", "usage")}
    return {"derived_caption": schema.derive_caption(plain)} | row


def jpeg(number: int) -> bytes:
    """A small picture of one colour, another for each number."""
    stream = io.BytesIO()
    colour = (number * 37 % 256, number // 7 % 256, number % 256)
    Image.new("RGB", (12, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def landed_row(
    number: int, source: Mapping[str, Any], picture: int | None = None, image: bytes | None = None
) -> Row:  # fmt: skip
    """A row as `land` writes it, from a dataset-like row and a picture number, or the picture itself."""
    data = image or jpeg(number if picture is None else picture)
    facts = examine(data)
    text = {name: str(source[name] or "") for name in schema.NAMES}
    sha = hashlib.sha256(data).hexdigest()
    return {
        **{name: source[name] for name in schema.NAMES}, "row": number + 2, "row_id": schema.row_id(text, sha),
        "image": data, "image_sha256": sha, "image_key": facts.image_key, "width": facts.width,
        "height": facts.height, "mode": facts.mode,
    }  # fmt: skip


def write_drop(store: Path, name: str, rows: Iterable[Row], landed: int) -> Path:
    """A landed drop under `store/drops`, as the dataset stage reads it."""
    folder = store / "drops" / name
    folder.mkdir(parents=True)
    rows = [{"drop_id": name, "catalog": schema.CATALOG, **row} for row in rows]
    table = pa.Table.from_pylist(rows, schema=schema.products_schema())
    pq.write_table(table, folder / "products.parquet")
    (folder / "report.json").write_text(json.dumps({"drop_id": name, "landed": landed}), encoding="utf-8")
    return folder


def workspace(folder: Path) -> Path:
    """A folder to run stages in: this project's parameters and an empty store."""
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "store").mkdir()
    return folder
