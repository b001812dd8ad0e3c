"""Captions that are not about a product: what their words alone allow, by tags, and never a corrupted word."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from catalogs import product

from data.negatives.build import generate, make_generator
from data.negatives.captions import Product, read, slots

NOTHING = dict.fromkeys(
    ("gender", "master_category", "sub_category", "article_type", "base_colour", "season", "year", "usage")
)
CAPTIONS = [
    f"{one} {subject} {verb} {place}{end}"
    for one in ("A young", "An old")
    for subject in ("man", "woman")
    for verb in ("sitting on", "standing on", "jumping over", "walking past")
    for place in ("a bench", "a couch", "the bed", "a red car", "a blue bus", "a dog", "a cat")
    for end in (".", " in a kitchen.", " beside a horse.")
]
Row = dict[str, Any]


def row(number: int, caption: str) -> Row:
    return product(row_id=f"g{number:04}", title=caption, image_key=f"k{number}", group=number, **NOTHING,
                   derived_caption=None)  # fmt: skip


ROWS = [row(number, caption) for number, caption in enumerate(CAPTIONS)]


def negatives(caption: str, *, seed: int = 17) -> dict[str, list[Row]]:
    """{edit type: rows} of one caption among the others, which are the vocabulary."""
    rows = [*ROWS, row(len(ROWS), caption)]
    made = generate(make_generator(rows, seed, 8), [Product.of(rows[-1])], 8).to_pylist()
    return {kind: [r for r in made if r["edit_type"] == kind] for kind in ("relation", "attribute", "object", "action")}


def test_the_specifications_captions() -> None:
    """ce_clip.md 9.11."""
    bench = negatives("A man on a bench beside a dog")
    assert {r["negative"] for r in bench["relation"]} <= {"A bench on a man beside a dog"}
    both = negatives("A man and a woman near a bench")
    assert both["relation"] == []
    everything = [r["negative"] for found in (*bench.values(), *both.values()) for r in found]
    assert everything
    assert not any("wowoman" in text for text in everything)
    assert bench["action"] == both["action"] == []
    assert not any("man" in r["replacement"] for r in both["attribute"])  # a man and a woman are both there


def test_every_type_is_made_and_nothing_else_changes() -> None:
    found = negatives("A young woman sitting on a red couch.")
    assert {r["original"] for r in found["action"]} == {"sitting"}
    assert {r["replacement"] for r in found["action"]} <= {"standing", "jumping", "walking"}
    assert {r["replacement"] for r in found["object"]} <= {"bench", "bed", "chair", "table"}
    assert {(r["original"], r["replacement"]) for r in found["attribute"]} <= {("woman", "man"), ("red", "blue")}
    assert all(found[kind] for kind in ("action", "object", "attribute"))
    for r in itertools.chain(*found.values()):
        assert r["caption"][: r["start"]] + r["replacement"] + r["caption"][r["end"] :] == r["negative"]


def test_verbs_keep_their_form_and_need_somebody_who_acts() -> None:
    assert {r["replacement"] for r in negatives("A woman sits on a bench.")["action"]} <= {"stands", "jumps", "walks"}
    for caption in ("A vase sitting on a table.", "A walking stick on a bed.", "The run ends on a bench."):
        assert negatives(caption)["action"] == []


def slot_texts(caption: str) -> dict[str, str]:
    found = slots(read(caption), Product.of(row(0, caption)), "title")
    return {kind: caption[m.start : m.end] for kind, m in found.items()}


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("Two hot dogs on a plate", "thing"), ("A cat food bowl", "thing"), ("A dog and a puppy asleep", "thing"),
        ("A man in a white shirt and a tie", "article"), ("A casual party", "usage"), ("A navy and blue cat", "colour"),
    ],
)  # fmt: skip
def test_what_is_left_alone(caption: str, kind: str) -> None:
    """Compounds, the same thing twice, what a person may wear besides, and occasions."""
    assert kind not in slot_texts(caption)


def test_pronouns_must_agree() -> None:
    assert negatives("A woman sitting on a bench with her dog")["attribute"] == []
    assert negatives("A man sitting on a bench with his dog")["attribute"] == []


def test_neither_order_nor_company_matters() -> None:
    shuffled = ROWS[:]
    random.Random(3).shuffle(shuffled)
    key = lambda r: (r["row_id"], r["edit_type"], r["candidate"])  # noqa: E731
    first, second = (
        sorted(generate(make_generator(rows, 5, 3), map(Product.of, rows), 3).to_pylist(), key=key)
        for rows in (ROWS, shuffled)
    )
    assert first == second
    assert len(first) > len(ROWS)
    few = generate(make_generator(ROWS, 5, 3), map(Product.of, ROWS[10:20]), 3).to_pylist()
    assert sorted(few, key=key) == [r for r in first if r["row_id"] in {row["row_id"] for row in ROWS[10:20]}]
