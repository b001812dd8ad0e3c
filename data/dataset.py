"""STAGE  Merge the accepted drops into one dataset, keep duplicates together, and split it without leaks.

A later drop's row of the same product replaces the earlier one, and a withdrawal takes the product out. The result
holds one row per product, one picture per distinct image, the rows that fit no split, and the statistics that people
and checks look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.dataset_pictures import draw_contact_sheet, draw_distributions
from data.dataset_rows import (
    Drop,
    Products,
    held_back_table,
    landed_drops,
    nearby,
    read_rows,
    read_withdrawals,
    settle,
    to_table,
)
from data.images import in_threads
from data.landings import STATISTICS, landings, warnings
from data.lookalikes import Looks, lookalikes, looks
from data.params import UserError, section
from data.statistics import check_dataset, drift, statistics, summary

DROPS, OUT = Path("store/drops"), Path("store/dataset")
ROW_GROUP = 512  # images per parquet row group: a reader takes what it needs without holding the catalog
IMAGE_SCHEMA = pa.schema(
    [("image_key", pa.string()), ("jpeg", pa.binary()), ("width", pa.int32()), ("height", pa.int32())]
)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Section `dataset` of params.yaml: shares of the groups that go to validation and test, the alarm for drift."""

    val_share: float = 0.05
    test_share: float = 0.15
    max_drift: float = 0.2

    def __post_init__(self) -> None:
        if min(self.val_share, self.test_share) <= 0 or self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share must be positive and leave a share for train")
        if not 0 < self.max_drift <= 1:
            raise ValueError("max_drift is a total variation distance; it must lie in (0, 1]")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(DatasetConfig, "dataset")
    with stage.run(
        "dataset", kind="dataset", command="python -m data.dataset", out=OUT, inputs=[DROPS], parameters=params,
        force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        drops = landed_drops(DROPS)
        rows = read_rows(drops)
        near = look(run, drops, rows)
        shares = {"val_share": params.val_share, "test_share": params.test_share}
        products = settle(rows, read_withdrawals(drops), near, **shares)
        if products.rows.empty:
            raise UserError(
                f"{DROPS}: every product was withdrawn. Land one: `python -m data.land data/starter/drop-1`."
            )
        run.log(f"{len(products.rows)} products in {products.rows['family'].nunique()} families "
                f"from {len(drops)} drop(s)")  # fmt: skip
        pq.write_table(to_table(products.rows), run.out / "products.parquet", compression="zstd")
        pq.write_table(held_back_table(products.held_back), run.out / "held_back.parquet", compression="zstd")
        write_images(run, drops, products.rows, run.out / "images.parquet")
        report(run, drops, products, near, params)


def report(
    run: stage.Run, drops: list[Drop], made: Products, near: Mapping[str, list[str]], params: DatasetConfig
) -> None:
    """Statistics, checks and pictures of a finished dataset, into the record and beside it."""
    products = made.rows
    found = statistics(products) | {
        "drift": drift(products), "replaced_rows": made.replaced, "withdrawn_products": made.withdrawn,
        "held_back_rows": len(made.held_back), "landings": landings(drop.folder for drop in drops),
    }  # fmt: skip
    (run.out / STATISTICS).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    run.summary(**summary(found))
    run.table("splits", found["splits"])
    if warned := warnings(found["landings"]):
        run.table("warnings of the landings", warned)
    if found["drift"]:
        run.table("drift of the last drop", found["drift"])
    shares = {"val": params.val_share, "test": params.test_share}
    for check in check_dataset(made, near, run.out / "images.parquet", shares, params.max_drift):
        run.check(**check)
    sheet, plot = run.out / "contact_sheet.png", run.out / "distributions.png"
    draw_contact_sheet(products, run.out / "images.parquet", sheet)
    draw_distributions(products, plot)
    run.picture("contact sheet", sheet)
    run.picture("splits and attributes", plot)


def look(run: stage.Run, drops: list[Drop], rows: pd.DataFrame) -> dict[str, list[str]]:
    """{picture: the earlier ones that look the same}, over every picture ever landed."""
    keys = list(dict.fromkeys(rows["image_key"]))
    found: list[Looks] = []
    for table in run.progress(_first_pictures(drops, keys), what="batches of pictures looked at"):
        found += in_threads(looks, table["jpeg"].to_pylist())
    return nearby(keys, lookalikes(found))


def write_images(run: stage.Run, drops: list[Drop], products: pd.DataFrame, path: Path) -> None:
    """One row per distinct picture that a product shows, as first landed; streamed, never all in memory."""
    wanted = set(products["image_key"])
    with pq.ParquetWriter(path, IMAGE_SCHEMA, compression="none", use_dictionary=False) as writer:
        total = -(-len(wanted) // ROW_GROUP)
        for batch in run.progress(_row_groups(_first_pictures(drops, wanted)), total=total, what="row groups"):
            writer.write_table(batch)


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP` rows, the last one shorter."""
    held = IMAGE_SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= ROW_GROUP:
            yield held.slice(0, ROW_GROUP).combine_chunks()
            held = held.slice(ROW_GROUP)
    if len(held):
        yield held.combine_chunks()


def _first_pictures(drops: list[Drop], wanted: Iterable[str]) -> Iterator[pa.Table]:
    """The wanted pictures in the order in which they first landed."""
    left = set(wanted)
    columns = ["image_key", "image", "width", "height"]
    for drop in (drop for drop in drops if drop.products.is_file()):
        for batch in pq.ParquetFile(drop.products).iter_batches(ROW_GROUP, columns=columns):
            keep = []
            for key in batch.column("image_key").to_pylist():
                keep.append(key in left)
                left.discard(key)
            table = pa.Table.from_batches([batch]).filter(pa.array(keep, pa.bool_()))
            yield table.rename_columns(IMAGE_SCHEMA.names).cast(IMAGE_SCHEMA)


if __name__ == "__main__":
    sys.exit(main())
