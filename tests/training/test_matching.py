"""The matching head of a trained fused method, asked about pictures of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import small_simla, sync_tiny
from tests.training.official.fixture_retrieval import picture
from training.fused.heads.examples import BLOCK, Shelf
from training.fused.heads.stack import stack_of
from training.fused.matching import Matcher
from training.fused.reading import read
from training.official.contract import Picture
from training.task import Tokens


@pytest.mark.parametrize("kind", ["simla", "syncmask"])
def test_score_is_the_log_odds_of_each_pair_alone(kind: str, tmp_path: Path) -> None:
    """Pictures repeat, texts differ in length, and pairs fill more than one block."""
    method = (small_simla.task() if kind == "simla" else sync_tiny.task()).eval()
    for number in range(3):
        picture(tmp_path / f"{number}.png", number, size=32)
    pictures = [Picture(f"{number % 3}.png") for number in range(BLOCK + 3)]
    texts = [("w1", "w2 w3 w4 w5", "w6 w7")[number % 2 + (number % 5 == 0)] for number in range(BLOCK + 3)]
    found = Matcher(method, tmp_path)(pictures, texts)
    assert found.shape == (BLOCK + 3,)
    assert found.dtype == np.float32
    encoder, stack = stack_of(method, 1)
    shelf = Shelf(tmp_path, encoder.config.image_size)
    for row in (0, 1, 5, BLOCK + 2):
        with torch.no_grad():
            v = encoder.image.trunk.tokens(shelf.take([(pictures[row],)])[:, 0])
            words = read(stack, encoder.text.trunk, Tokens(*encoder.tokenize([texts[row]])), v)
            odds = method.itm(words[:, 0]).log_softmax(1)
        assert found[row] == pytest.approx(float(odds[0, 1] - odds[0, 0]), abs=1e-5)
    assert len(set(np.round(found, 5))) > 3


def test_no_pairs(tmp_path: Path) -> None:
    assert Matcher(small_simla.task().eval(), tmp_path)([], []).shape == (0,)
