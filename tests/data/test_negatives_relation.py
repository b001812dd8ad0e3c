"""Swaps of arguments: only where the meaning changes, never inside words."""

from __future__ import annotations

import pytest
from catalogs import product

from data.negatives import relation
from data.negatives.captions import Product, read, slots
from data.negatives.edits import Draft, Source, finish
from data.negatives.filters import Facts


def swaps(caption: str, *others: dict, **values: object) -> list[str]:
    """The swapped captions of a product with this title, or the reason why there is none."""
    rows = [Product.of(product(title=caption, **values)), *(Product.of(row) for row in others)]
    reading = read(caption)
    source = Source(rows[0], "title", reading, slots(reading, rows[0], "title"), Facts.of(rows), 0)
    drafts = list(relation.drafts(source))
    return [finish(caption, d).negative if isinstance(d, Draft) else d for d in drafts]


def test_noun_phrases_change_places_across_an_asymmetric_relation() -> None:
    assert swaps("A man on a bench beside a dog") == ["A bench on a man beside a dog"]
    assert swaps("a cat under the wooden table") == ["the wooden table under a cat"]


def test_symmetric_relations_are_refused_and_words_never_torn() -> None:
    found = swaps("A man and a woman near a bench")
    assert found == ["symmetric"]
    assert not any("wowoman" in text for text in found)
    assert swaps("a dress with a belt") == ["symmetric"]


@pytest.mark.parametrize(
    "caption", ["a dog sleeps", "Red bench", "Boss In Motion Men Perfume", "Myntra Painted On The Wall"]
)
def test_captions_without_two_arguments_have_no_slot(caption: str) -> None:
    assert swaps(caption) == ["no_slot"]


def test_articles_follow_their_words() -> None:
    assert swaps("an owl on a bench") == ["a bench on an owl"]
    assert swaps("a White T-shirt with an Orange Stripe") == ["an Orange T-shirt with a White Stripe"]


def test_colours_bound_to_product_and_part_are_exchanged_with_their_shade() -> None:
    title = "Classic Polo Men's White T-shirt with Dark Blue Stripes"
    assert swaps(title) == ["Classic Polo Men's Dark Blue T-shirt with White Stripes"]


def test_colours_of_brand_and_product_are_exchanged() -> None:
    shoe = {"article_type": "Formal Shoes", "base_colour": "Black"}
    assert swaps("Red Tape Men Black Shoes", **shoe) == ["Black Tape Men Red Shoes"]


@pytest.mark.parametrize(
    "title", ["Puma White & Black Shoe", "Puma White Black Shoe", "Puma White and Black Striped Tee"]
)
def test_colours_side_by_side_are_symmetric(title: str) -> None:
    assert swaps(title) == ["symmetric"]


def test_a_swap_that_is_true_of_the_group_is_refused() -> None:
    title = "Red Tape Men Black Shoes"
    shoe = {"article_type": "Formal Shoes", "base_colour": "Black"}
    twin = product(row_id="r1", title=title, article_type="Formal Shoes", base_colour="Maroon")
    assert swaps(title, twin, **shoe) == ["true_of_group"]
    watch = {"article_type": "Watches", "base_colour": "White"}
    assert swaps("Puma Women Gold Stones White Watches", **watch) == ["true_of_group"]
