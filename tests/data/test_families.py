"""Families of products, by what their titles say beyond the attributes."""

from __future__ import annotations

from typing import Any

import pytest
from catalogs import product

from data.families import family_key


def family(title: str | None, article_type: str | None = "Casual Shoes", **values: Any) -> str | None:
    return family_key(product(title=title, article_type=article_type, **values))


def test_colour_wearer_and_pattern_do_not_matter() -> None:
    names = ["Vans Men Navy Blue Versa Casual Shoes", "Vans Women's VERSA Black Shoe", "versa printed by Vans"]
    assert {family(name) for name in names} == {"casual shoes: vans versa"}


@pytest.mark.parametrize("title", [None, "", "Puma Men Black Casual Shoes", "Men's Blue Shoes"])
def test_a_make_alone_is_no_family(title: str | None) -> None:
    assert family(title) is None


def test_another_model_make_or_kind_of_thing_is_another_family() -> None:
    names = [("Vans Versa", "Casual Shoes"), ("Vans Alpha", "Casual Shoes"), ("Puma Versa", "Casual Shoes"),
             ("Vans Versa", "Backpacks"), ("Vans Versa", None)]  # fmt: skip
    assert len({family(*name) for name in names}) == 5


def test_missing_attributes_are_fine() -> None:
    empty = dict.fromkeys(("gender", "master_category", "sub_category", "usage", "season"), float("nan"))
    assert family_key({"title": "Golden Delicious Apple", "article_type": None, **empty}) == ": apple delicious"
    assert family_key({"title": float("nan"), "article_type": None, **empty}) is None
