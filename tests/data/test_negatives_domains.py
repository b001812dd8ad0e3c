"""Catalogs of another domain: a dataset's own values become words, and nothing doubtful is exchanged."""

from __future__ import annotations

from typing import Any

from catalogs import product

from data.negatives.build import generate, make_generator
from data.negatives.captions import Product
from data.negatives.generate import lexicon_of

FRUIT = ("Apple", "Pear", "Banana", "Green Apple", "Yoghurt")
GARMENTS = ("T-Shirt", "Polo", "Skirt", "Blouse", "Hat", "Outwear")


def rows(articles: tuple[str, ...], many: int = 60) -> list[dict[str, Any]]:
    plain = dict.fromkeys(("gender", "sub_category", "base_colour", "usage", "season"))
    made = []
    for number in range(many):
        article = articles[number % len(articles)]
        made.append(product(
            **plain, row_id=f"r{number:03}", title=f"fresh {article.lower()} of lot {number}", article_type=article,
            master_category="Food", image_key=f"k{number}", group=number, derived_caption=article.lower(),
        ))  # fmt: skip
    return made


def exchanged(articles: tuple[str, ...]) -> set[tuple[str, str]]:
    table = rows(articles)
    found = generate(make_generator(table, 17, 4), map(Product.of, table), 4).to_pylist()
    assert {row["edit"] for row in found} == {"article"}
    return {(row["original"], row["replacement"].removeprefix("an ")) for row in found}


def test_a_datasets_own_articles_are_exchanged() -> None:
    pairs = exchanged(FRUIT)
    assert {("banana", "pear"), ("green apple", "pear"), ("apple", "banana")} <= pairs
    assert not {("apple", "green apple"), ("green apple", "apple")} & pairs


def test_other_names_of_known_articles_stay_with_them() -> None:
    """A polo may be called a T-shirt, an outer garment a jacket; a skirt is neither."""
    pairs = exchanged(GARMENTS)
    assert {("skirt", "hat"), ("t-shirt", "skirt")} <= pairs
    assert not {("polo", "t-shirt"), ("t-shirt", "polo"), ("blouse", "t-shirt")} & pairs


def test_unknown_colours_and_wearers_are_never_exchanged() -> None:
    lexicon = lexicon_of([Product.of(product(base_colour="Blush", gender="Kids", article_type="T-Shirt"))])
    (blush,) = lexicon.find("Blush")
    (kids,) = lexicon.find("Kids")
    assert blush.term.form == "Blush"
    assert "Unisex" in kids.term.values
    assert "Tops" in lexicon.closure("article", ["T-Shirt"])
    table = [product(row_id=f"r{n}", title="Puma Blush Tee", base_colour="Blush", gender="Kids", image_key=f"k{n}",
                     group=n) for n in range(40)]  # fmt: skip
    found = generate(make_generator(table, 17, 4), map(Product.of, table), 4).to_pylist()
    assert not [row for row in found if row["edit"] in ("colour", "gender")]


def test_rows_without_any_attribute_are_read() -> None:
    bare = dict.fromkeys(("gender", "master_category", "sub_category", "article_type", "base_colour", "season", "year",
                          "usage"))  # fmt: skip
    table = [product(row_id="r0", title=None, **bare, derived_caption=None), product(row_id="r1", title="x", **bare)]
    assert generate(make_generator(table, 17, 4), map(Product.of, table), 4).num_rows == 0


def test_words_stay_in_their_catalog() -> None:
    """Beside each other in one dataset, a skirt never becomes a banana."""
    table = [
        {**row, "row_id": f"{name}{row['row_id']}", "group": first + row["group"], "catalog": name}
        for first, (name, articles) in zip((0, 1000), (("food", FRUIT), ("wear", GARMENTS)), strict=True)
        for row in rows(articles)
    ]
    found = generate(make_generator(table, 17, 4), map(Product.of, table), 4).to_pylist()
    words = {"f": {name.lower() for name in FRUIT}, "w": {name.lower() for name in GARMENTS}}
    assert {row["row_id"][0] for row in found} == {"f", "w"}
    assert all(row["replacement"].removeprefix("an ") in words[row["row_id"][0]] for row in found)
