"""STAGE  Benchmark suites from the test split, the fixed exam that every model sits.

compositional: photo, caption and one hard negative; a model is right if it scores the caption strictly higher.
retrieval: title to photo and back, over the whole test split; products with one title are all correct.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.negatives.build import DATASET, make_generator, read_products
from data.negatives.captions import Product
from data.negatives.edits import EDITS
from data.negatives.examples import draw_examples
from data.negatives.generate import Generator
from data.negatives.report import check_blind, check_hard_rule, count_table, tally_table
from data.params import UserError, section
from data.text import clean, title_key

Row = dict[str, Any]
OUT = Path("store/suites")
COMPOSITIONAL = pa.schema([
    ("item_id", pa.string()), ("row_id", pa.string()), ("image_key", pa.string()), ("group", pa.int64()),
    ("caption_kind", pa.string()), ("caption", pa.string()), ("edit_type", pa.string()), ("edit", pa.string()),
    ("negative", pa.string()),
])  # fmt: skip
RETRIEVAL = pa.schema([
    ("item_id", pa.string()), ("row_id", pa.string()), ("image_key", pa.string()), ("group", pa.int64()),
    ("caption", pa.string()), ("title_key", pa.string()),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SuitesConfig:
    """Section `suites` of params.yaml. `per_edit`: at most this many compositional items of each edit."""

    seed: int = 23
    per_edit: int = 1200

    def __post_init__(self) -> None:
        if self.per_edit < 1:
            raise ValueError("per_edit must be at least 1")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(SuitesConfig, "suites")
    with stage.run(
        "suites", kind="suites", command="python -m data.suites", out=OUT, inputs=[DATASET], parameters=params,
        seeds={"suites": params.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        rows = read_products(DATASET)
        test = [row for row in rows if row["split"] == "test"]
        if not test:
            raise UserError(f"{DATASET}: the test split is empty; land a larger drop or raise dataset.test_share.")
        generator = make_generator(rows, params.seed, 1)
        items = balance(compositional(generator, run.progress(test, what="products")), params.per_edit)
        queries = retrieval(test)
        write(items, COMPOSITIONAL, run.out / "compositional.parquet")
        write(queries, RETRIEVAL, run.out / "retrieval.parquet")
        run.log(f"{len(items)} compositional and {len(queries)} retrieval items from {len(test)} test products")
        run.summary(compositional=len(items), retrieval=len(queries), test_products=len(test))
        report(run, rows, items, queries, generator)


def report(run: stage.Run, rows: list[Row], items: list[Row], queries: list[Row], generator: Generator) -> None:
    """Counts, checks and the picture page of the suites."""
    run.table("compositional items", count_table(items))
    run.table("what became of the drafts", tally_table(generator))
    check_hard_rule(run, items, rows)
    check_identity(run, items, queries)
    train = [row for row in rows if row["split"] == "train"]
    check_blind(run, compositional(make_generator(rows, generator.seed, 1), train), items, "suite items")
    page = run.out / "examples.png"
    by_id = {row["row_id"]: row for row in rows}
    draw_examples(page, items, by_id, DATASET / "images.parquet", "Compositional suite")
    run.picture("examples", page)


def check_identity(run: stage.Run, items: list[Row], queries: list[Row]) -> None:
    """Item ids are unique, and every item asks about a test product."""
    counts = Counter(item["item_id"] for item in (*items, *queries))
    twice = sorted(name for name, count in counts.items() if count > 1)
    run.check(
        "item_ids_are_unique", not twice, severity="critical", count=len(twice), examples=twice,
        description="Every item has an id of its own, so outcomes of two models can be paired.",
    )  # fmt: skip


def compositional(generator: Generator, rows: Iterable[Row]) -> list[Row]:
    """One item per caption and edit that has a negative, in the rows' order."""
    items = []
    for row in rows:
        for caption_kind, caption, found in generator.negatives(Product.of(row)):
            for edit, negatives in found.items():
                for made in negatives[:1]:
                    items.append({
                        "item_id": item_id(row["row_id"], caption_kind, edit, made.negative), "row_id": row["row_id"],
                        "image_key": row["image_key"], "group": row["group"], "caption_kind": caption_kind,
                        "caption": caption, "edit_type": EDITS[edit], "edit": edit, "negative": made.negative,
                    })  # fmt: skip
    return items


def balance(items: list[Row], per_edit: int) -> list[Row]:
    """At most `per_edit` items of each edit, those with the smallest item ids: a choice new products hardly change."""
    ranked = sorted(items, key=lambda item: item["item_id"])
    taken: Counter[str] = Counter()
    kept = set()
    for item in ranked:
        if taken[item["edit"]] < per_edit:
            taken[item["edit"]] += 1
            kept.add(item["item_id"])
    return [item for item in items if item["item_id"] in kept]


def retrieval(rows: Iterable[Row]) -> list[Row]:
    """One item per test product with a title."""
    return [
        {
            "item_id": item_id(row["row_id"], "title", "retrieval", row["title"]), "row_id": row["row_id"],
            "image_key": row["image_key"], "group": row["group"], "caption": clean(row["title"]),
            "title_key": title_key(row["title"]),
        }
        for row in rows if title_key(row["title"])
    ]  # fmt: skip


def item_id(*parts: str) -> str:
    """16 hex digits that name an item by what it asks, so the same question has the same id in every edition."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def write(items: list[Row], columns: pa.Schema, path: Path) -> None:
    """Write items with every writer setting fixed: the suites' record id must depend on the items alone."""
    table = pa.Table.from_pylist(items, schema=columns)
    pq.write_table(table, path, compression="zstd", compression_level=3, version="2.6", row_group_size=1 << 16)


if __name__ == "__main__":
    sys.exit(main())
