"""What counts as the same answer: cosines, scores, titles, and swaps only between products that tie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving import parity
from serving.config import PromotionConfig
from serving.golden import Case
from serving.triton import Answer

CONFIG = PromotionConfig(endpoints={"search": "ce_clip"}, cosine=0.9999, score_tolerance=1e-4)
NAN = np.full(2, np.nan, np.float32)
CASE = Case(
    case="title 1", text="red shoes", image=None, ids=["a", "b", "c"], titles=["A", "B", "C"],
    scores=[0.9, 0.50005, 0.5], match=None, text_embedding=[0.6, 0.8], image_embedding=None,
)  # fmt: skip
ANSWER = Answer(
    model="search", version=1, record="r", ids=["a", "b", "c"], titles=["A", "B", "C"],
    scores=np.array([0.9, 0.50005, 0.5], np.float32), match=float("nan"),
    text_embedding=np.array([0.6, 0.8], np.float32), image_embedding=NAN,
)  # fmt: skip


def differ(**changes: object) -> list[str]:
    return parity.differences(CASE, replace(ANSWER, **changes), CONFIG)  # type: ignore[arg-type]


def test_the_same_answer_agrees() -> None:
    assert differ() == []


def test_products_that_tie_within_the_tolerance_may_swap() -> None:
    assert differ(ids=["a", "c", "b"], titles=["A", "C", "B"]) == []


def test_the_last_product_may_give_way_to_one_outside_that_ties_with_it() -> None:
    assert differ(ids=["a", "b", "z"], titles=["A", "B", "Z"]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": ["b", "a", "c"], "titles": ["B", "A", "C"]}, "rank 1 is b"),
        ({"ids": ["z", "b", "c"], "titles": ["Z", "B", "C"]}, "rank 1 is z"),
        ({"ids": ["a", "b", "b"], "titles": ["A", "B", "B"]}, "twice"),
        ({"ids": ["a", "b"], "titles": ["A", "B"]}, "2 products instead of 3"),
        ({"titles": ["A", "B", "X"]}, "'X' instead of 'C'"),
        ({"scores": np.array([0.9, 0.50005, 0.51], np.float32)}, "rank 3"),
        ({"scores": np.array([np.nan, 0.50005, 0.5], np.float32)}, "rank 1"),
        ({"text_embedding": np.array([0.8, 0.6], np.float32)}, "text embedding at cosine 0.96"),
        ({"text_embedding": NAN}, "cosine -1"),
        ({"text_embedding": np.array([1.0], np.float32)}, "cosine -1"),
    ],
)
def test_any_other_difference_is_named(changes: dict[str, object], words: str) -> None:
    found = differ(**changes)
    assert len(found) == 1
    assert words in found[0]


def test_the_match_of_text_and_image_counts() -> None:
    case = replace(CASE, match=0.25)
    assert parity.differences(case, replace(ANSWER, match=0.25005), CONFIG) == []
    assert parity.differences(case, replace(ANSWER, match=0.2502), CONFIG) == ["match 0.2502 instead of 0.2500"]
    assert parity.differences(case, ANSWER, CONFIG) == ["match nan instead of 0.2500"]


def test_cosine_by_hand() -> None:
    assert parity.cosine(np.array([3.0, 4.0], np.float32), [4.0, 3.0]) == pytest.approx(24 / 25)


def test_the_reason_names_the_inputs() -> None:
    failed = parity.Parity(cases=9, text_cosine=1.0, image_cosine=1.0, failures=("a: x", "b: y", "c: z", "d: w"))
    assert failed.reason == "4 of 9 golden inputs differ from their offline answers: a: x; b: y; c: z"
    assert parity.Parity(cases=9, text_cosine=1.0, image_cosine=1.0, failures=()).reason == ""
