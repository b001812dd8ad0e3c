"""Cleaning, tokens with offsets, title keys, letter case and a/an."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text import apply, clean, fit_article, indefinite, recase, title_key, tokens, with_article


@given(st.text())
def test_cleaning_is_final_and_leaves_no_double_space(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert "  " not in cleaned
    assert cleaned == cleaned.strip()
    assert unicodedata.is_normalized("NFC", cleaned)


@given(st.text())
def test_token_offsets_point_at_the_words(text: str) -> None:
    found = tokens(text)
    for token in found:
        assert text[token.start : token.end].lower().replace("’", "'") == token.text
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_apostrophes_stay_inside_words_and_hyphens_do_not() -> None:
    assert [t.text for t in tokens("Puma Men’s T-shirt, 100% cotton")] == [
        "puma",
        "men's",
        "t",
        "shirt",
        "100",
        "cotton",
    ]


def test_titles_are_the_same_up_to_case_spaces_and_apostrophes() -> None:
    assert title_key("  Puma  MEN’S Tee ") == title_key("puma men's tee")
    assert title_key("Puma Tee") != title_key("Puma Tees")
    assert title_key(" ") is None
    assert title_key(None) is None


@pytest.mark.parametrize(
    ("word", "like", "expected"),
    [
        ("Casual Shoes", "tshirts", "casual shoes"),
        ("Shirt", "T-SHIRT", "SHIRT"),
        ("T-shirt", "Watch", "T-shirt"),
        ("red", "Blue", "Red"),
        ("Red", "B", "Red"),
        ("Red", "123", "Red"),
    ],
)
def test_recase(word: str, like: str, expected: str) -> None:
    assert recase(word, like) == expected


@pytest.mark.parametrize(
    ("word", "article"),
    [
        ("orange", "an"), ("red", "a"), ("hour", "an"), ("unisex", "a"), ("umbrella", "an"), ("one-piece", "a"),
        ("undershirt", "an"), ("T-shirt", "a"), ("X-ray", "an"), ("EDT", "an"), ("USB", "a"), ("Olive", "an"),
    ],
)  # fmt: skip
def test_indefinite_article_follows_the_sound(word: str, article: str) -> None:
    assert indefinite(word) == article


def test_an_edit_takes_the_article_before_it_along() -> None:
    caption = "A red dress and a grey shoe"
    start = caption.index("grey")
    edit = with_article(caption, start, start + 4, "orange")
    assert caption[edit[0] : edit[1]] == "a grey"
    assert apply(caption, *edit) == "A red dress and an orange shoe"
    assert apply(caption, *with_article(caption, 2, 5, "olive")) == "An olive dress and a grey shoe"
    assert with_article(caption, 2, 5, "blue") == (2, 5, "blue")


def test_letters_that_only_look_like_an_article_stay() -> None:
    assert fit_article("Vitamin a ", "orange") == "Vitamin an "
    assert fit_article("Banana ", "orange") == "Banana "
    assert fit_article("La ", "orange") == "La "
