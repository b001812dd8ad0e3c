"""The vote for keywords and its loss, by hand."""

from __future__ import annotations

import pytest
import torch

from tests.training import small_simla as small
from training.fused.keywords import concepts, dropped_ids, multi_hot, vote, words_at


def test_keyword_voting_by_hand() -> None:
    attention = torch.tensor([[
        [0.50, 0.05, 0.20, 0.10, 0.10, 0.05], [0.40, 0.10, 0.05, 0.30, 0.10, 0.05], [0.05, 0.05, 0.30, 0.15, 0.40, 0.05]
    ]])  # fmt: skip
    ids = torch.tensor([[2, 11, 12, 13, 14, 3]])
    positions = vote(attention, torch.ones(1, 6, dtype=torch.long), 2, 2)
    assert sorted(positions[0].tolist()) == [0, 2]
    targets = multi_hot(words_at(ids, positions), 40, torch.tensor([2]))
    assert targets.nonzero().tolist() == [[0, 12]]


def test_padding_has_no_vote_and_specials_are_no_keywords() -> None:
    attention = torch.full((1, 2, 8), 0.0)
    attention[:, :, 0], attention[:, :, 1], attention[:, :, 2] = 0.5, 0.3, 0.2
    ids = torch.tensor([[2, 17, 3, 0, 0, 0, 0, 0]])
    mask = (ids > 0).long()
    positions = vote(attention, mask, 4, 5)
    assert positions.tolist() == [[0, 1, 2, -1, -1]]
    for drop, expected in (("cls", [3, 17]), ("specials", [17])):
        dropped = dropped_ids(small.tokenizer(small.WORDS), drop)  # type: ignore[arg-type]
        assert multi_hot(words_at(ids, positions), 40, dropped)[0].nonzero()[:, 0].tolist() == expected
    words = [*small.WORDS, "for", "with"]
    assert {40, 41} <= set(dropped_ids(small.tokenizer(words), "stop_words").tolist())


def test_concept_loss_by_hand() -> None:
    z = torch.tensor([[2, -1, 0, 0.5, -2, 0, 1, -1]])
    y = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0, 0]])
    soft = torch.tensor([[1.0, 0, -1, 2, -3, 0, 0, -2]]).sigmoid()
    for alpha, expected in ((0.0, 0.506752), (1.0, 0.608194), (0.4, 0.547329)):
        assert concepts(z, y, soft, alpha).mean().item() == pytest.approx(expected, abs=1e-5)
