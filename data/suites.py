"""STAGE  Benchmark suites from the test split, the fixed exam that every model sits.

compositional: photo, caption and one hard negative; a model is right if it scores the caption strictly higher.
retrieval: title to photo and back, over the whole test split; products with one title are all correct. In a catalog
without titles, derived captions take their place.
attributes: photo and title; a model is right if it gives the product's own class the highest probability.
composed: photo and a wish ("in red"); right are the test photos that differ in exactly that.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data import stage
from data.negatives.audit import AuditConfig
from data.negatives.build import DATASET, make_generator, read_products
from data.negatives.captions import Product
from data.negatives.edits import EDITS
from data.negatives.generate import Generator
from data.negatives.labels import labels_input
from data.negatives.report import count_table, report_audit, tally_table
from data.params import UserError, canonical, section
from data.suites_attributes import ATTRIBUTES, attributes, classes, commonest, draw_attributes, task_table
from data.suites_composed import COMPOSED, change_table, check_composed, composed, draw_composed
from data.suites_items import Row, balance, item_id, write
from data.text import clean, title_key

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
SCHEMAS = {
    "compositional": COMPOSITIONAL, "retrieval": RETRIEVAL, "attributes": ATTRIBUTES, "composed": COMPOSED,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SuitesConfig:
    """Section `suites` of params.yaml.

    `per_edit`: at most this many compositional items of each edit; `per_change`: at most this many composed items of
    each changed attribute.
    """

    seed: int = 23
    per_edit: int = 1200
    per_change: int = 600

    def __post_init__(self) -> None:
        for name in ("per_edit", "per_change"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True)
class Suites:
    """The items of every suite, and the products they were made of."""

    rows: list[Row]
    compositional: list[Row]
    retrieval: list[Row]
    attributes: list[Row]
    composed: list[Row]

    def all(self) -> tuple[Row, ...]:
        return (*self.compositional, *self.retrieval, *self.attributes, *self.composed)


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params, audit = section(SuitesConfig, "suites"), section(AuditConfig, "negatives.audit")
    with stage.run(
        "suites", kind="suites", command="python -m data.suites", out=OUT, inputs=[DATASET, *labels_input(audit)],
        parameters={**canonical(params), "audit": audit}, seeds={"suites": params.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        rows = read_products(DATASET)
        train, test = split(rows, "train"), split(rows, "test")
        if not test:
            raise UserError(f"{DATASET}: the test split is empty; land a larger drop or raise dataset.test_share.")
        generator = make_generator(rows, params.seed, 1)
        made = Suites(
            rows, balance(compositional(generator, run.progress(test, what="products")), params.per_edit),
            retrieval(test), attributes(test, classes(train), commonest(train)), composed(test, params.per_change),
        )  # fmt: skip
        for name, columns in SCHEMAS.items():
            items = getattr(made, name)
            write(items, columns, run.out / f"{name}.parquet")
            run.summary(**{name: len(items)})
            run.log(f"{name}: {len(items):,} items")
        run.summary(test_products=len(test))
        report(run, made, generator, audit)


def split(rows: Iterable[Row], name: str) -> list[Row]:
    """The products of one split."""
    return [row for row in rows if row["split"] == name]


def report(run: stage.Run, made: Suites, generator: Generator, audit: AuditConfig) -> None:
    """Counts, checks and the picture pages of the suites; the compositional items are audited as negatives are."""
    train = split(made.rows, "train")
    run.table("compositional items", count_table(made.compositional))
    run.table("what became of the drafts", tally_table(generator))
    if made.attributes:
        run.table("attribute items", task_table(made.attributes, classes(train)))
    if made.composed:
        run.table("composed items", change_table(made.composed))
    check_identity(run, made.all())
    check_unseen(run, made)
    check_composed(run, made.composed, made.rows)
    learnt = compositional(make_generator(made.rows, generator.seed, 1), train)
    report_audit(
        run, made.compositional, made.rows, images=DATASET / "images.parquet", config=audit, tally=generator.tally,
        learnt=learnt, examined=made.compositional, where="suite items",
    )  # fmt: skip
    draw_pages(run, made)


def draw_pages(run: stage.Run, made: Suites) -> None:
    """A page of examples for each of the other suites that ask more than "find this title"."""
    images = DATASET / "images.parquet"
    for title, items, draw in (
        ("attributes", made.attributes, draw_attributes), ("composed", made.composed, draw_composed),
    ):  # fmt: skip
        if items:
            draw(run.out / f"{title}.png", items, images)
            run.picture(title, run.out / f"{title}.png")


def check_identity(run: stage.Run, items: Iterable[Row]) -> None:
    """Item ids are unique, so outcomes can be paired."""
    counts = Counter(item["item_id"] for item in items)
    twice = sorted(name for name, count in counts.items() if count > 1)
    run.check(
        "item_ids_are_unique", not twice, severity="critical", count=len(twice), examples=twice,
        description="Every item has an id of its own, so outcomes of two models can be paired.",
    )  # fmt: skip


def check_unseen(run: stage.Run, made: Suites) -> None:
    """No photo of an item is one that a model could have been trained on."""
    seen = {row["image_key"] for row in made.rows if row["split"] != "test"}
    wrong = [item["item_id"] for item in made.all() if seen & {item["image_key"], *item.get("targets", ())}]
    run.check(
        "photos_are_unseen", not wrong, severity="critical", count=len(wrong), examples=wrong,
        description="No photo that an item shows, or accepts as an answer, belongs to a train or val product.",
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


def retrieval(rows: Iterable[Row]) -> list[Row]:
    """One item per test product with a title, or with a derived caption if no product of its catalog has a title."""
    rows = list(rows)
    titled = {row["catalog"] for row in rows if title_key(row["title"])}
    items = []
    for row in rows:
        kind, column = ("title", "title") if row["catalog"] in titled else ("derived", "derived_caption")
        if key := title_key(row[column]):
            items.append({
                "item_id": item_id(row["row_id"], kind, "retrieval", row[column]), "row_id": row["row_id"],
                "image_key": row["image_key"], "group": row["group"], "caption": clean(row[column]), "title_key": key,
            })  # fmt: skip
    return items


if __name__ == "__main__":
    sys.exit(main())
