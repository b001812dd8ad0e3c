"""STAGE  Merge the accepted drops into one dataset, keep duplicates together, and split it without leaks.

A later drop's row with the same id replaces the earlier one. The result holds one row per product, one picture per
distinct image, and the statistics that people and checks look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.dataset_pictures import draw_contact_sheet, draw_distributions
from data.params import UserError, section
from data.splits import assign, group_rows, split_key
from data.statistics import check_dataset, drift, statistics, summary
from data.text import title_key

DROPS, OUT = Path("store/drops"), Path("store/dataset")
ROW_GROUP = 512  # images per parquet row group: a reader takes what it needs without holding the catalog
TEXT_COLUMNS = (
    "row_id", "drop_id", "id", "title", "gender", "master_category", "sub_category", "article_type", "base_colour",
    "season", "year", "usage", "derived_caption", "image_key",
)  # fmt: skip
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


@dataclass(frozen=True)
class Drop:
    """One accepted drop: its folder and its place in the order of landing."""

    folder: Path
    landed: int

    @property
    def products(self) -> Path:
        return self.folder / "products.parquet"


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
        products = split_products(rows, params)
        run.log(f"{len(products)} products in {products['group'].nunique()} groups from {len(drops)} drop(s)")
        pq.write_table(to_table(products), run.out / "products.parquet", compression="zstd")
        write_images(run, drops, products, run.out / "images.parquet")
        report(run, rows, products, params)


def report(run: stage.Run, rows: pd.DataFrame, products: pd.DataFrame, params: DatasetConfig) -> None:
    """Statistics, checks and pictures of a finished dataset, into the record and beside it."""
    found = statistics(products) | {"drift": drift(products), "replaced_rows": len(rows) - len(products)}
    (run.out / "statistics.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    run.summary(**summary(found))
    run.table("splits", found["splits"])
    if found["drift"]:
        run.table("drift of the last drop", found["drift"])
    shares = {"val": params.val_share, "test": params.test_share}
    for check in check_dataset(products, run.out / "images.parquet", shares, params.max_drift):
        run.check(**check)
    sheet, plot = run.out / "contact_sheet.png", run.out / "distributions.png"
    draw_contact_sheet(products, run.out / "images.parquet", sheet)
    draw_distributions(products, plot)
    run.picture("contact sheet", sheet)
    run.picture("splits and attributes", plot)


def landed_drops(folder: Path) -> list[Drop]:
    """The accepted drops under `folder` in the order in which they landed, by the number in their `report.json`."""
    drops = []
    for path in sorted(folder.glob("[!.]*/report.json")):  # a landing under way is hidden
        try:
            landed = int(json.loads(path.read_text(encoding="utf-8"))["landed"])
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}: not a report. Restore it with `dvc checkout`, or land the drop again.") from None
        if (path.parent / "products.parquet").is_file():
            drops.append(Drop(path.parent, landed))
    if not drops:
        raise UserError(f"{folder}: no accepted drop. Land one first: `python -m data.land data/starter/drop-1`.")
    return sorted(drops, key=lambda drop: drop.landed)


def read_rows(drops: list[Drop]) -> pd.DataFrame:
    """Every accepted row of every drop, in landing order, without the pictures."""
    tables = [pq.read_table(drop.products, columns=list(TEXT_COLUMNS)) for drop in drops]
    rows = pa.concat_tables(tables).to_pandas(types_mapper=_nullable)
    if rows.empty:
        raise UserError(f"{DROPS}: the accepted drops hold no row. Look at their quarantine tables.")
    return rows


def split_products(rows: pd.DataFrame, params: DatasetConfig) -> pd.DataFrame:
    """One row per product id, the last landed, with `group` and `split`.

    Groups are formed over replaced rows too: what a product once was keeps its place in train (data/splits.py).
    """
    titles = [title_key(title) if isinstance(title, str) else None for title in rows["title"]]
    pictures = rows["image_key"].tolist()
    groups = group_rows(titles, pictures, rows["id"].tolist())
    keys = map(split_key, titles, pictures)
    splits = assign(groups, keys, val_share=params.val_share, test_share=params.test_share)
    products = rows.assign(group=groups, split=splits)
    return products[~products.duplicated("id", keep="last")].reset_index(drop=True)


def to_table(products: pd.DataFrame) -> pa.Table:
    """The contract's columns and types of `products.parquet`."""
    kinds = {"year": pa.int32(), "group": pa.int64()}
    fields = [(name, kinds.get(name, pa.string())) for name in (*TEXT_COLUMNS, "group", "split")]
    return pa.Table.from_pandas(products, schema=pa.schema(fields), preserve_index=False).replace_schema_metadata()


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


def _first_pictures(drops: list[Drop], wanted: set[str]) -> Iterator[pa.Table]:
    left = set(wanted)
    columns = ["image_key", "image", "width", "height"]
    for drop in drops:
        for batch in pq.ParquetFile(drop.products).iter_batches(ROW_GROUP, columns=columns):
            keep = []
            for key in batch.column("image_key").to_pylist():
                keep.append(key in left)
                left.discard(key)
            table = pa.Table.from_batches([batch]).filter(pa.array(keep, pa.bool_()))
            yield table.rename_columns(IMAGE_SCHEMA.names).cast(IMAGE_SCHEMA)


def _nullable(kind: pa.DataType) -> object:
    return pd.Int32Dtype() if pa.types.is_integer(kind) else None


if __name__ == "__main__":
    sys.exit(main())
