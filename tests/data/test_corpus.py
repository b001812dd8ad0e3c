"""Captions for language-only training: what is a caption, what is a keyword, how keywords are replaced, the stage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import corpus, record
from data.corpus import KINDS, CorpusConfig, captions, check_titles, gather, held_titles, sound
from data.corpus_exclusion import Exam
from data.keywords import MARK, Keyword, Word, clean_caption, is_random, keyword_spans, keywords_of, mask
from data.params import UserError, strict
from data.stage import Run

Row = dict[str, Any]
LONG = 0.999


def words(caption: str, *tags: str) -> list[Word]:
    """Words as a tagger gives them, one tag per whitespace word."""
    found, place = [], 0
    for text, pos in zip(caption.split(), tags, strict=True):
        start = caption.index(text, place)
        found.append(Word(start, place := start + len(text), pos))
    return found


def spans(caption: str, *tags: str) -> list[Keyword]:
    return keyword_spans(caption, words(caption, *tags))


def row(title: str | None, split: str = "train", derived: str = "red shoes for men", row_id: str = "r") -> Row:
    return {"row_id": row_id, "split": split, "title": title, "derived_caption": derived}


def of_products(products: list[Row], held_out: float) -> list[Row]:
    """The captions of a catalog alone."""
    found: dict[str, Row] = {}
    for kind, column in KINDS.items():
        told = [product[column] or "" for product in products if product["split"] == "train"]
        gather(found, told, kind, Exam(held_titles(products)))
    return captions(found, held_out)


# --- cleaning and spans -----------------------------------------------------------------------------------------------


def test_cleaning() -> None:
    assert clean_caption("  <PERSON> in  a $5 Dress\n") == "person in a 5 dress"
    assert clean_caption(None) == clean_caption(" $ ") == ""


def test_spans_are_maximal_runs() -> None:
    cat = "gray cat sleeps on a pillow"
    assert spans(cat, "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN") == [
        Keyword(0, 8, "gray cat"), Keyword(19, 27, "a pillow")
    ]  # fmt: skip
    assert spans(cat, "ADJ", "NOUN", "NOUN", "PROPN", "DET", "NOUN") == [Keyword(0, 27, cat)]
    assert spans(cat, "VERB", "ADV", "VERB", "ADP", "NUM", "PUNCT") == []


def test_a_span_over_a_gap_in_the_spacing_is_joined_by_single_spaces() -> None:
    caption = "dr.martens boot"
    found = keyword_spans(caption, [Word(0, 3, "PROPN"), Word(3, 10, "PROPN"), Word(11, 15, "NOUN")])
    assert found == [Keyword(0, 15, "dr. martens boot")]
    assert sound({"caption": caption, "keywords": [k._asdict() for k in found]})
    assert mask(caption, found, "offsets") == MARK
    assert is_random(caption, found, "official")
    assert not is_random(caption, found, "offsets")


# --- masking ----------------------------------------------------------------------------------------------------------


def test_golden_masks() -> None:
    cat = "gray cat sleeps on a pillow"
    found = spans(cat, "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN")
    assert mask(cat, found, "offsets") == mask(cat, found, "official") == "[$] sleeps on [$]"
    nice = "a very nice cat"
    found = spans(nice, "DET", "ADV", "ADJ", "NOUN")
    assert mask(nice, found, "offsets") == "[$] very [$]"
    assert mask(nice, found, "official") == "[$] very nice c[$]t"


@pytest.mark.parametrize("mode", ["offsets", "official"])
def test_a_caption_without_keywords_loses_one_random_word(mode: Any) -> None:
    caption = "sleeps very soundly"
    assert is_random(caption, [], mode)
    drawn = {mask(caption, [], mode, chance) for chance in (0.0, 0.3, 0.34, 0.5, 0.7, LONG)}
    assert drawn == {"[$] very soundly", "sleeps [$] soundly", "sleeps very [$]"}


def test_official_stops_at_the_first_span_it_cannot_find() -> None:
    caption = "blue t-shirt with dr.martens and socks"
    found = [Keyword(0, 4, "blue"), Keyword(18, 28, "dr. martens"), Keyword(33, 38, "socks")]
    assert mask(caption, found, "official", LONG) == "[$] t-shirt with dr.martens and [$]"
    assert mask(caption, found, "official", 0.2) == "[$] [$] with dr.martens and socks"
    assert mask(caption, found, "offsets") == "[$] t-shirt with [$] and [$]"


def test_official_replaces_every_occurrence() -> None:
    found = [Keyword(0, 3, "red")]
    assert mask("red, red and hundred", found, "official") == "[$], [$] and hund[$]"
    assert mask("red, red and hundred", found, "offsets") == "[$], red and hundred"


# --- what belongs to the corpus ---------------------------------------------------------------------------------------


def test_captions_are_distinct_and_of_train() -> None:
    rows = of_products([row("Red Shoes"), row("red  shoes"), row("Blue Bag", "val", "blue bags"), row(None)], 0.5)
    assert [(r["caption"], r["kind"], r["products"]) for r in rows] == [
        ("red shoes", "title", 2), ("red shoes for men", "derived", 3)
    ]  # fmt: skip


@pytest.mark.parametrize("split", ["val", "test"])
def test_titles_of_other_splits_are_left_out(split: str) -> None:
    products = [row("Red Shoes"), row("RED $SHOES"), row("A Bag", derived="red shoes"), row("Red  shoes", split)]
    assert [r["caption"] for r in of_products(products, 0.5)] == ["a bag", "red shoes for men"]


def test_the_exclusion_is_checked_on_the_result() -> None:
    run = Run("corpus", Path())
    products = [row("Blue Bag", "test"), row("Red Bag", "val")]
    check_titles(run, ["bag (blue)", "green bag"], products)
    assert run._checks[0]["severity"] == "critical"
    assert (run._checks[0]["passed"], run._checks[0]["examples"]) == (False, ["bag (blue)"])


def test_what_is_held_out_depends_on_the_caption_alone() -> None:
    products = [row(f"shoe number {n}") for n in range(400)]
    held = {r["caption"] for r in of_products(products, 0.25) if r["held_out"]}
    assert 60 < len(held) < 140
    assert {r["caption"] for r in of_products(products[:50], 0.25) if r["held_out"]} == held & {
        clean_caption(p["title"]) for p in products[:50]
    }


def test_something_is_held_out_of_the_smallest_corpus() -> None:
    rows = of_products([row(f"shoe number {n}") for n in range(4)], 1e-9)
    assert sum(r["held_out"] for r in rows) == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_impossible_settings_are_refused(share: float) -> None:
    with pytest.raises(UserError, match="held_out"):
        strict(CorpusConfig, {"held_out": share}, where="params.yaml: corpus")


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Row]], int]:
    """Runs the stage over the given products."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("corpus: {held_out: 0.1}\n", encoding="utf-8")

    def run(products: list[Row]) -> int:
        Path("store/dataset").mkdir(parents=True, exist_ok=True)
        schema = pa.schema([(name, pa.string()) for name in corpus.COLUMNS])
        pq.write_table(pa.Table.from_pylist(products, schema=schema), "store/dataset/products.parquet")
        return corpus.main(["--force"])

    return run


def test_the_stage_tags_checks_and_repeats_itself(stage: Callable[[list[Row]], int]) -> None:
    titles = ["Puma Men's Blue T-shirt", "gray cat sleeps on a pillow", "Ring $ of Gold", "a very nice cat", None]
    products = [row(title, derived=f"{n} shoes") for n, title in enumerate(titles)] + [row("Nice Bag", "test")]
    assert stage(products) == 0
    first = Path("store/corpus/corpus.parquet").read_bytes()
    rows = {r["caption"]: r for r in pq.read_table("store/corpus/corpus.parquet").to_pylist()}
    assert list(rows) == sorted(rows)
    assert {"ring of gold", "4 shoes"} <= rows.keys()
    assert "nice bag" not in rows
    cat = keywords_of(rows["gray cat sleeps on a pillow"])
    assert mask("gray cat sleeps on a pillow", cat, "offsets") == "[$] sleeps on [$]"
    assert all(sound(r) for r in rows.values())
    made = record.verify(Path("store/corpus"))
    assert [(c["name"], c["passed"], c["severity"]) for c in made.checks] == [
        ("no_title_of_val_or_test", True, "critical"), ("no_text_of_a_benchmark", True, "critical"),
        ("spans_fit_their_captions", True, "critical")
    ]  # fmt: skip
    assert made.tables["masked captions"]
    assert (Path("store/corpus") / made.pictures["keywords"]).is_file()
    assert stage(products[::-1]) == 0
    assert [r["caption"] for r in pq.read_table("store/corpus/corpus.parquet").to_pylist()] == list(rows)
    assert stage(products) == 0
    assert Path("store/corpus/corpus.parquet").read_bytes() == first


def test_no_captions_is_an_error_with_a_cure(
    stage: Callable[[list[Row]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage([row("Blue Bag", "test")]) == 2
    assert "Land more products" in capsys.readouterr().err
    assert not Path("store/corpus").exists()


def test_the_tagger_is_imported_only_when_something_is_tagged() -> None:
    code = "import sys, data.corpus; assert not {'spacy', 'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
