"""STAGE  Hard-negative captions for every train and val product: relation, attribute, object and action edits.

`negatives.parquet` holds edits none of which is true of its product; `swaps.parquet` holds NegCLIP's, per caption. Both
are made here and not when a training starts: they are data, looked at and versioned as such, and parsing costs seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.negatives.audit import AuditConfig
from data.negatives.captions import CAPTION_KINDS, Product
from data.negatives.edits import EDIT_TYPES, EDITS
from data.negatives.generate import Generator, interleave
from data.negatives.judges import Judges
from data.negatives.labels import labels_input
from data.negatives.masked import MaskedFills
from data.negatives.plausibility import Trigrams, further_texts
from data.negatives.report import check_coverage, count_table, draw_one, report_audit, share_table, tally_table
from data.negatives.swaps import swap_table
from data.negatives.synonyms import SameMeaning, SmallThesaurus, WordNet
from data.params import section

Row = dict[str, Any]
DATASET, OUT = Path("store/dataset"), Path("store/negatives")
SCHEMA = pa.schema([
    ("row_id", pa.string()), ("caption_kind", pa.string()), ("caption", pa.string()), ("edit_type", pa.string()),
    ("edit", pa.string()), ("candidate", pa.int32()), ("negative", pa.string()), ("start", pa.int32()),
    ("end", pa.int32()), ("original", pa.string()), ("replacement", pa.string()),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlausibilityConfig:
    """Section `negatives.plausibility`.

    `limit`: by how many nats a word the place of an edit may grow likelier or less likely. `texts`: files that teach
    the model besides the train split's captions, one text a line, or a csv with a title column; either may end in .gz.
    """

    limit: float = 2.0
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError("limit must be above 0 nats")


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """Section `negatives` of params.yaml.

    `wordnet`: folder of WordNet's database files; without it a small list of synonyms stands in. `masked_lm`: folder of
    a transformers masked language model that proposes further words.
    """

    seed: int = 17
    candidates: int = 4
    wordnet: str | None = None
    masked_lm: str | None = None
    plausibility: PlausibilityConfig = field(default_factory=PlausibilityConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= 64:
            raise ValueError("candidates must lie between 1 and 64")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(NegativesConfig, "negatives")
    with stage.run(
        "negatives", kind="negatives", command="python -m data.negatives.build", out=OUT,
        inputs=[DATASET, *labels_input(params.audit)], parameters=params, seeds={"negatives": params.seed},
        force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        rows = read_products(DATASET)
        generator = make_generator(rows, params.seed, params.candidates, params)
        wanted = [Product.of(row) for row in rows if row["split"] != "test"]
        started = time.process_time()
        negatives = generate(generator, run.progress(wanted, what="products"), params.candidates)
        captions = generator.captions
        rate = captions / (time.process_time() - started)
        run.facts(captions_per_second=round(rate))
        run.log(f"{len(negatives)} negatives of {captions} captions, {rate:.0f} captions/s on one core")
        pq.write_table(negatives, run.out / "negatives.parquet", compression="zstd")
        report(run, rows, negatives.to_pylist(), generator, params.audit)
        make_swaps(run, wanted, params.seed)


def report(run: stage.Run, rows: list[Row], negatives: list[Row], generator: Generator, audit: AuditConfig) -> None:
    """Counts, refusals and coverage; then the audit, its checks and its page."""
    captions = generator.captions
    valid = Counter(row["edit_type"] for row in negatives if row["candidate"] == 0)
    run.summary(
        negatives=len(negatives), captions=captions, products=len({row["row_id"] for row in negatives}),
        **{f"validity_{kind}": round(valid[kind] / captions, 4) for kind in EDIT_TYPES},
    )  # fmt: skip
    run.table("negatives per edit", count_table(negatives))
    run.table("what became of the drafts", tally_table(generator))
    check_coverage(run, valid, captions)
    splits = {row["row_id"]: row["split"] for row in rows}
    drawn = draw_one(negatives, generator.seed)
    report_audit(
        run, negatives, rows, images=DATASET / "images.parquet", config=audit, tally=generator.tally,
        learnt=[row for row in drawn if splits[row["row_id"]] == "train"],
        examined=[row for row in drawn if splits[row["row_id"]] == "val"], where="held-out val products",
    )  # fmt: skip


def make_swaps(run: stage.Run, products: Sequence[Product], seed: int) -> None:
    """`swaps.parquet`, how many captions have one, and why others have none."""
    captions: dict[str, list[str]] = {
        kind: [text for p in products if (text := p.caption(kind))] for kind in CAPTION_KINDS
    }
    table, tally = swap_table([text for texts in captions.values() for text in texts], seed)
    pq.write_table(table, run.out / "swaps.parquet", compression="zstd")
    run.table("NegCLIP's swaps: share of captions that have one", share_table(table, captions))
    run.table("NegCLIP's swaps: what became of the kinds", [{"result": key, "count": n} for key, n in tally.items()])


def make_generator(rows: list[Row], seed: int, candidates: int, config: NegativesConfig | None = None) -> Generator:
    """The generator over a whole dataset, its vocabulary and its trigrams counted on the train split."""
    config = config or NegativesConfig()
    products = [Product.of(row) for row in rows]
    training = {row["row_id"] for row in rows if row["split"] == "train"}
    held_out = [text for product in products if product.row_id not in training for text in _captions(product)]
    texts = [text for product in products if product.row_id in training for text in _captions(product)]
    for path in config.plausibility.texts:
        texts += further_texts(Path(path), besides=held_out)
    judges = Judges(
        meaning=SameMeaning(WordNet(Path(config.wordnet)) if config.wordnet else SmallThesaurus()),
        trigrams=Trigrams(texts), limit=config.plausibility.limit,
        masked=MaskedFills(Path(config.masked_lm)) if config.masked_lm else None,
    )  # fmt: skip
    return Generator(products, training, seed=seed, candidates=candidates, judges=judges)


def _captions(product: Product) -> list[str]:
    return [text for kind in CAPTION_KINDS if (text := product.caption(kind))]


def read_products(folder: Path) -> list[Row]:
    """The rows of a dataset's `products.parquet`."""
    return pq.read_table(folder / "products.parquet").to_pylist()


def generate(generator: Generator, products: Iterable[Product], candidates: int) -> pa.Table:
    """The table of `negatives.parquet`: up to `candidates` rows per product, caption kind and edit type."""
    of_type = {edit_type: [edit for edit in EDITS if EDITS[edit] == edit_type] for edit_type in EDIT_TYPES}
    columns: list[list[Any]] = [[] for _ in SCHEMA]
    add = [column.append for column in columns]
    for product in products:
        for caption_kind, caption, found in generator.negatives(product):
            for edit_type, edits in of_type.items():
                for number, made in enumerate(interleave([found[edit] for edit in edits if edit in found], candidates)):
                    row = (product.row_id, caption_kind, caption, edit_type, made.edit, number, *made[1:])
                    for append, value in zip(add, row, strict=True):
                        append(value)
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


if __name__ == "__main__":
    sys.exit(main())
