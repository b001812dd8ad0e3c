"""What the composed benchmarks share: rankings against a plain sort, ties, and the padding of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.params import UserError
from tests.training.official.audit_exams import RandomExam
from training.official import composed, pictures
from training.official.contract import Picture
from training.ranking import BLOCK


def _units(rows: int, size: int, seed: int) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def test_hits_equal_a_plain_sort_over_blocks() -> None:
    queries, gallery = _units(BLOCK + 7, 8, 1), _units(50, 8, 2)
    right = [sorted({number % 50, (7 * number + 3) % 50}) for number in range(len(queries))]
    for query, places, found in zip(queries, right, composed.hits(queries, gallery, right), strict=True):
        order = np.argsort(-(gallery @ query))
        assert found.tolist() == [rank for rank, place in enumerate(order, start=1) if place in places]


def test_a_wrong_picture_that_ties_stands_before_the_right_one() -> None:
    scores = np.array([[0.9, 0.9, 0.5, 0.5, 0.2]], np.float32)
    (found,) = composed.hits(np.ones((1, 1), np.float32), scores.T, [[0, 2]])
    assert found.tolist() == [2, 4]


def test_nearest_are_in_order_and_leave_the_own_picture_out() -> None:
    queries, gallery = _units(BLOCK + 3, 8, 3), _units(40, 8, 4)
    own = np.arange(len(queries)) % 40
    found = composed.nearest(queries, gallery, 5, own)
    for query, place, row in zip(queries, own, found, strict=True):
        order = [int(at) for at in np.argsort(-(gallery @ query)) if at != place]
        assert row.tolist() == order[:5]


def test_candidates_are_ranked_among_their_own() -> None:
    queries, gallery = _units(BLOCK + 3, 8, 5), _units(40, 8, 6)
    candidates = np.random.default_rng(7).permuted(np.tile(np.arange(40), (len(queries), 1)), axis=1)[:, :6]
    found = composed.rank_of_first(composed.scores_among(queries, gallery, candidates))
    for query, own, rank in zip(queries, candidates, found, strict=True):
        scores = gallery[own] @ query
        assert rank == 1 + (scores[1:] > scores[0]).sum()
    tied = np.array([[0.5, 0.5, 0.5, 0.4]], np.float32)
    assert composed.rank_of_first(tied).tolist() == [3]


def test_nothing_is_ranked_by_numbers_that_are_none() -> None:
    class Broken(RandomExam):
        def compose(self, pictures, changes):  # type: ignore[no-untyped-def]
            return np.full((len(changes), 64), np.nan, np.float32)

    with pytest.raises(UserError, match="not finite"):
        composed.ways(Broken(0), [Picture("a.jpg")], ["in red"])


@pytest.mark.parametrize(
    ("size", "padded"), [((100, 200), (160, 200)), ((300, 100), (300, 240)), ((100, 125), (100, 125)), ((9, 9), (9, 9))]
)
def test_pictures_are_padded_to_a_ratio(tmp_path: Path, size: tuple[int, int], padded: tuple[int, int]) -> None:
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    found = pictures.load(Picture("a.png", pad=1.25), tmp_path)
    assert found.size == padded
    assert np.asarray(found).sum() == 3 * 255 * size[0] * size[1]
    assert found.getpixel((padded[0] // 2, padded[1] // 2)) == (255, 255, 255)
