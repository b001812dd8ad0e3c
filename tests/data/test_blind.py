"""A reader without the picture: it finds every giveaway of words and lengths, and nothing where there is none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from data.negatives.blind import BlindReader, blind_table


def test_a_blind_reader_learns_a_giveaway_and_nothing_from_balanced_edits() -> None:
    pairs = [(f"a{n % 7} men tee", f"a{n % 7} women tee") for n in range(60)]
    assert BlindReader(pairs, word_pairs=False).accuracy(pairs) == 1.0
    both = pairs + [(negative, caption) for caption, negative in pairs]
    assert BlindReader(both, word_pairs=True).accuracy(both) == 0.5
    assert BlindReader(pairs, word_pairs=False).accuracy([("x", "y")]) == 0.5  # unseen words tie: a coin


def test_a_blind_reader_sees_lengths() -> None:
    """Negatives of ever new words that are always longer: no word gives them away, their length does."""
    pairs = [(f"tee{n}", f"extraordinary{n}") for n in range(400)]
    assert BlindReader(pairs[:200], word_pairs=False).accuracy(pairs[200:]) == 1.0
    more_words = [(f"a{n}", f"b{n} c{n} d{n}") for n in range(400)]
    assert BlindReader(more_words[:200], word_pairs=False).accuracy(more_words[200:]) == 1.0


def test_word_pairs_see_an_order_that_words_do_not() -> None:
    pairs = [(f"red tee blue sock {n}", f"blue tee red sock {n}") for n in range(100)]
    assert BlindReader(pairs[:50], word_pairs=False).accuracy(pairs[50:]) == 0.5
    assert BlindReader(pairs[:50], word_pairs=True).accuracy(pairs[50:]) == 1.0


def _row(edit: str, caption: str, negative: str) -> dict[str, Any]:
    return {"edit": edit, "edit_type": "attribute", "caption": caption, "negative": negative}


def test_the_table_counts_each_edit_apart() -> None:
    chance = random.Random(3)
    words = ["red", "blue", "green", "black"]

    def fair(n: int) -> dict[str, Any]:
        one, other = chance.sample(words, 2)
        return _row("colour", f"{one} tee {n}", f"{other} tee {n}")

    rows = [fair(n) for n in range(2000)] + [_row("gender", f"men tee {n}", f"women tee {n}") for n in range(500)]
    chance.shuffle(rows)
    found, scores = blind_table(rows[:1500], rows[1500:])
    read = {row["edit"]: row for row in found}
    assert read["gender"]["words"] == 1.0
    assert read["colour"]["words"] == pytest.approx(0.5, abs=0.06)
    assert read["all"]["pairs"] == 1000 == read["colour"]["pairs"] + read["gender"]["pairs"]
    assert scores["words"] == read["all"]["words"]


def test_nothing_to_learn_or_to_examine_is_a_coin() -> None:
    rows = [_row("colour", "red tee", "blue tee")]
    assert blind_table([], rows)[1] == {"words": 0.5, "word_pairs": 0.5}
    assert blind_table(rows, [])[1] == {"words": 0.5, "word_pairs": 0.5}
