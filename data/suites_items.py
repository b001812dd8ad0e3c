"""What the suites share: how an item is named, how a fixed number of items is chosen, how they are written."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def item_id(*parts: str) -> str:
    """16 hex digits that name an item by what it asks, so the same question has the same id in every edition."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def balance(items: list[Row], most: int, by: str = "edit") -> list[Row]:
    """At most `most` items of each value of `by`, those with the smallest ids: a choice new products hardly change."""
    ranked = sorted(items, key=lambda item: item["item_id"])
    taken: Counter[str] = Counter()
    kept = set()
    for item in ranked:
        if taken[item[by]] < most:
            taken[item[by]] += 1
            kept.add(item["item_id"])
    return [item for item in items if item["item_id"] in kept]


def write(items: list[Row], columns: pa.Schema, path: Path) -> None:
    """Write items with every writer setting fixed: the suites' record id must depend on the items alone."""
    table = pa.Table.from_pylist(items, schema=columns)
    pq.write_table(table, path, compression="zstd", compression_level=3, version="2.6", row_group_size=1 << 16)
