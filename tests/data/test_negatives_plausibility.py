"""The trigram model against numbers worked out by hand, and the texts that may teach it."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from data.negatives.plausibility import BACKOFF, Trigrams, further_texts
from data.params import UserError

MODEL = Trigrams(["red shirt for men", "red shirt for women", "blue shirt for men"])
TOTAL = 19  # four words and two ends of three texts, and 1


def test_scores_are_those_of_the_counts() -> None:
    """P(men | shirt for) = 2/3, P(end | for men) = 1."""
    assert MODEL.score(("red", "shirt", "for"), ("men",), ()) == pytest.approx(math.log(2 / 3) / 2)
    assert MODEL.score(("red", "shirt", "for"), ("women",), ()) == pytest.approx(math.log(1 / 3) / 2)


def test_unseen_contexts_fall_back_on_pairs_words_and_nothing() -> None:
    """ "green shirt for": green is unseen, shirt after it known as a word (3 of 19), for follows shirt always."""
    expected = [2 * BACKOFF + math.log(0.5 / TOTAL), 2 * BACKOFF + math.log(3.5 / TOTAL), BACKOFF]
    assert MODEL.score((), ("green",), ("shirt", "for", "men")) == pytest.approx(sum(expected) / 3)


def test_a_taught_caption_is_scored_without_itself() -> None:
    """Once "red shirt for women" is taken away, only men are left: women has been seen nowhere else."""
    expected = [2 * BACKOFF + math.log(0.5 / TOTAL), 2 * BACKOFF + math.log((6 - 1 + 0.5) / TOTAL)]
    found = MODEL.score_of_taught(("red", "shirt", "for"), ("women",), ())
    assert found == pytest.approx(sum(expected) / 2)
    assert found < MODEL.score(("red", "shirt", "for"), ("women",), ())


def test_further_texts_leave_out_what_is_held_out(tmp_path: Path) -> None:
    lines = tmp_path / "titles.txt"
    lines.write_text("Puma Red Shirt\n\nPUMA  blue shirt\nNike Cap\n")
    assert list(further_texts(lines, besides=["Puma Blue Shirt"])) == ["Puma Red Shirt", "Nike Cap"]
    table = tmp_path / "titles.csv.gz"
    table.write_bytes(gzip.compress(b"id,productDisplayName\n1,Puma Red Shirt\n2,Nike Cap\n"))
    assert list(further_texts(table, besides=["nike cap"])) == ["Puma Red Shirt"]


def test_files_that_cannot_teach_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        list(further_texts(tmp_path / "none.txt", besides=[]))
    (tmp_path / "broken.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"broken.txt.gz"):
        list(further_texts(tmp_path / "broken.txt.gz", besides=[]))
    (tmp_path / "x.csv").write_text("id,colour\n1,red\n")
    with pytest.raises(UserError, match="no title column"):
        list(further_texts(tmp_path / "x.csv", besides=[]))
