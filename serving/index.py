"""The product index of an endpoint: one row per distinct picture, sorted by product id.

Pixel-identical pictures cannot be told apart by a search, so the products that share one are one row, under the lowest
of their ids. Rows lie in id order, so "ties by id" is "the lower row first" wherever scores are ranked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data.params import UserError

EMBEDDINGS, PRODUCTS = "embeddings.npy", "products.json"
COLUMNS = ["id", "title", "article_type", "base_colour", "image_key"]


@dataclass(frozen=True, kw_only=True)
class Product:
    """One row of the index. `title` is what a caller is shown; it is never empty."""

    id: str
    title: str
    image_key: str


def products(dataset: Path) -> list[Product]:
    """The rows of the index, from `store/dataset`. Raises `UserError` if there are none."""
    rows = pq.read_table(dataset / "products.parquet", columns=COLUMNS).to_pylist()
    first: dict[str, Product] = {}
    for row in sorted(rows, key=lambda r: r["id"]):
        first.setdefault(row["image_key"], Product(id=row["id"], title=_title(row), image_key=row["image_key"]))
    if not first:
        raise UserError(f"{dataset / 'products.parquet'}: no products, so there is nothing to search. Land a drop.")
    return list(first.values())


def write(folder: Path, rows: Sequence[Product], embeddings: np.ndarray) -> None:
    """Write the index files of a version folder; `embeddings` is (N, D) float32, row by row the products'."""
    np.save(folder / EMBEDDINGS, np.ascontiguousarray(embeddings, dtype=np.float32), allow_pickle=False)
    columns = {"id": [p.id for p in rows], "title": [p.title for p in rows]}
    (folder / PRODUCTS).write_text(json.dumps(columns, ensure_ascii=False) + "\n", encoding="utf-8")


def _title(row: dict[str, Any]) -> str:
    """The product's title; where the catalog has none, its colour and article type, else its id."""
    words = " ".join(row[name] for name in ("base_colour", "article_type") if row[name])
    return str(row["title"] or words or f"product {row['id']}")
