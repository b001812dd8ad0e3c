"""STAGE  Hard-negative captions for every train and val product: attribute and object edits and argument swaps."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.negatives.captions import Product
from data.negatives.edits import EDIT_TYPES, EDITS
from data.negatives.generate import Generator, interleave
from data.params import section

DATASET, OUT = Path("store/dataset"), Path("store/negatives")
SCHEMA = pa.schema([
    ("row_id", pa.string()), ("caption_kind", pa.string()), ("caption", pa.string()), ("edit_type", pa.string()),
    ("edit", pa.string()), ("candidate", pa.int32()), ("negative", pa.string()), ("start", pa.int32()),
    ("end", pa.int32()), ("original", pa.string()), ("replacement", pa.string()),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Section `negatives` of params.yaml."""

    seed: int = 17
    candidates: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= 64:
            raise ValueError("candidates must lie between 1 and 64")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(NegativesConfig, "negatives")
    with stage.run(
        "negatives", kind="negatives", command="python -m data.negatives.build", out=OUT, inputs=[DATASET],
        parameters=params, seeds={"negatives": params.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        rows = read_products(DATASET)
        training = [row["row_id"] for row in rows if row["split"] == "train"]
        products = {row["row_id"]: Product.of(row) for row in rows}
        started = time.perf_counter()
        generator = Generator(products.values(), training, seed=params.seed, candidates=params.candidates)
        run.facts(preparation_seconds=round(time.perf_counter() - started, 3))
        wanted = [products[row["row_id"]] for row in rows if row["split"] != "test"]
        started = time.perf_counter()
        negatives = generate(generator, run.progress(wanted, what="products"), params.candidates)
        captions = sum(
            count for (_, edit, what), count in generator.tally.items() if (edit, what) == ("swap", "captions")
        )
        rate = captions / (time.perf_counter() - started)
        run.facts(captions_per_second=round(rate))
        run.log(f"{len(negatives)} negatives of {captions} captions, {rate:.0f} captions/s on one core")
        pq.write_table(negatives, run.out / "negatives.parquet", compression="zstd")


def read_products(folder: Path) -> list[dict[str, Any]]:
    """The rows of a dataset's `products.parquet`."""
    return pq.read_table(folder / "products.parquet").to_pylist()


def generate(generator: Generator, products: Iterable[Product], candidates: int) -> pa.Table:
    """The table of `negatives.parquet`: up to `candidates` rows per product, caption kind and edit type."""
    rows = []
    for product in products:
        for caption_kind, caption, found in generator.negatives(product):
            for edit_type in EDIT_TYPES:
                edits = [edit for edit in EDITS if EDITS[edit] == edit_type]
                for number, made in enumerate(interleave(found, edits, candidates)):
                    rows.append((
                        product.row_id, caption_kind, caption, edit_type, made.edit, number, made.negative,
                        made.start, made.end, made.original, made.replacement,
                    ))  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [[]] * len(SCHEMA)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


if __name__ == "__main__":
    sys.exit(main())
