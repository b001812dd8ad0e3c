"""NegCLIP's swaps: whole words by offset, pairs whose order matters, the same ones every time."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from catalogs import landed_row, starter_rows, workspace, write_drop

from data import dataset, record
from data.negatives import build
from data.negatives.swaps import KINDS, swap_table
from data.text import fold

CAPTIONS = [
    "A man on a bench beside a dog",
    "A man and a woman near a bench",
    "the young black cat on the old red sofa",
    "a dog is slowly running while a cat quietly sleeps",
    "Nike Men T-shirt with Logo Shorts",
    "Casual Black Shoe",
    "red shirts and blue bags",
    "dogs chase cats",
    "cats chase dogs",
    "a girl",
]


def found(captions: list[str], seed: int = 17) -> dict[str, dict[str, str]]:
    """{caption: {kind: negative}}."""
    made: dict[str, dict[str, str]] = {}
    for row in swap_table(captions, seed)[0].to_pylist():
        made.setdefault(row["caption"], {})[row["kind"]] = row["negative"]
    return made


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, str]]:
    return found(CAPTIONS)


def test_spans_of_each_kind_change_places(made: dict[str, dict[str, str]]) -> None:
    assert made["the young black cat on the old red sofa"]["noun_chunk"] == "the old red sofa on the young black cat"
    running = made["a dog is slowly running while a cat quietly sleeps"]
    assert running["verb_phrase"] == "a dog quietly sleeps while a cat is slowly running"
    assert running["singular_noun"] == "a cat is slowly running while a dog quietly sleeps"
    assert running["adverb"] == "a dog is quietly running while a cat slowly sleeps"
    assert made["red shirts and blue bags"]["adjective"] == "blue shirts and red bags"


def test_a_swap_is_of_whole_words_and_only_reorders() -> None:
    """ "man" stands inside "woman", "T" inside "T-shirt": by substring both would be torn."""
    for seed in range(12):
        for caption, kinds in found(CAPTIONS, seed).items():
            for kind, negative in kinds.items():
                assert kind in KINDS
                assert "wowoman" not in negative
                assert negative != caption
                assert sorted(fold(negative).split()) == sorted(fold(caption).split())


def test_offsets_say_what_changed() -> None:
    for row in swap_table(CAPTIONS, 17)[0].to_pylist():
        caption = row["caption"]
        assert caption[: row["start"]] + row["replacement"] + caption[row["end"] :] == row["negative"]


def test_pairs_whose_order_does_not_matter_stay(made: dict[str, dict[str, str]]) -> None:
    assert "Casual Black Shoe" not in made  # nothing between
    for seed in range(12):  # "man and a woman" is the same either way
        assert found(["A man and a woman near a bench"], seed) != {
            "A man and a woman near a bench": {"singular_noun": "A woman and a man near a bench"}
        }
    assert "plural_noun" not in made.get("dogs chase cats", {})  # its swap is another caption
    assert "a girl" not in made


def test_swaps_depend_on_the_seed_and_on_nothing_else(made: dict[str, dict[str, str]]) -> None:
    assert found([*CAPTIONS[::-1], CAPTIONS[0], "  a girl "]) == made
    assert any(found(CAPTIONS, seed) != made for seed in range(5))


def test_the_stage_writes_them_for_train_and_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace(tmp_path)
    write_drop(folder / "store", "aa", [landed_row(n, row) for n, row in enumerate(starter_rows()[:300])], landed=0)
    monkeypatch.chdir(folder)
    assert dataset.main([]) == build.main([]) == 0
    products = pq.read_table("store/dataset/products.parquet").to_pylist()
    swapped = set(pq.read_table("store/negatives/swaps.parquet")["caption"].to_pylist())
    shown = {row[key] for row in products if row["split"] != "test" for key in ("title", "derived_caption")}
    assert swapped <= shown
    shares = record.read(Path("store/negatives")).tables["NegCLIP's swaps: share of captions that have one"]
    assert {row["caption_kind"]: row["with_swap"] > 0.5 for row in shares} == {"title": True, "derived": True}
