"""Masks: the frequencies and counts that the publications' code gives."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from training.fused.masking import UNLABELLED, bert_mask, block_mask, gumbel_top_k, replace_tokens

GRID, COUNT, LEAST = 16, 75, 16


def test_bert_mask_frequencies() -> None:
    """15 % are chosen; of these 80 % become [MASK], 10 % another token, 10 % stay. What may not be masked is not."""
    torch.manual_seed(0)
    ids = torch.randint(10, 1000, (500, 40))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, 0] = False
    masked, labels = bert_mask(ids, maskable, torch.rand(500, 40, 3), 0.15, 3, 1000)
    chosen = labels != UNLABELLED
    assert not chosen[:, 0].any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    share = chosen[:, 1:].float().mean().item()
    assert share == pytest.approx(0.15, abs=0.01)
    total = chosen.sum().item()
    assert (masked[chosen] == 3).sum().item() / total == pytest.approx(0.8, abs=0.03)
    assert (masked[chosen] == ids[chosen]).sum().item() / total == pytest.approx(0.1, abs=0.03)


def test_replacement_by_hand() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    chance = torch.tensor([[[0.79, 0.0], [0.8, 0.5], [0.9, 0.5], [0.0, 0.0]]])
    chosen = torch.tensor([[True, True, True, False]])
    masked, labels = replace_tokens(ids, chosen, chance, 1, 100)
    assert masked.tolist() == [[1, 50, 7, 8]]
    assert labels.tolist() == [[5, 6, 7, UNLABELLED]]


def neighbours(mask: np.ndarray) -> int:
    """Pairs of masked cells that share a side."""
    return int((mask[1:] & mask[:-1]).sum() + (mask[:, 1:] & mask[:, :-1]).sum())


def test_block_masks_have_the_published_counts_and_hang_together() -> None:
    masks = [block_mask(GRID, GRID, COUNT, LEAST, random.Random(seed)).reshape(GRID, GRID).numpy()
             for seed in range(2000)]  # fmt: skip
    counts = np.array([mask.sum() for mask in masks])
    assert counts.max() == COUNT
    assert counts.min() >= 55
    assert counts.mean() == pytest.approx(74.3, abs=0.3)
    pairs = np.array([neighbours(mask) for mask in masks])
    assert pairs.mean() == pytest.approx(124, abs=2)
    assert pairs.min() > 90
    scattered = np.array([
        neighbours(np.random.default_rng(seed).permutation(GRID * GRID).reshape(GRID, GRID) < COUNT)
        for seed in range(500)
    ])  # fmt: skip
    assert scattered.mean() == pytest.approx(41, abs=1.5)
    assert scattered.max() < pairs.min()


def test_block_masks_of_small_grids() -> None:
    for seed in range(200):
        mask = block_mask(6, 4, 7, 2, random.Random(seed))
        assert mask.shape == (24,)
        assert 1 <= mask.sum() <= 7


def test_gumbel_limits() -> None:
    """T → 0 takes the best, T → ∞ is uniform, T = 1 with one place has the scores as frequencies (3σ)."""
    torch.manual_seed(1)
    draws = 4000
    scores = torch.tensor([0.4217, 0.3363, 0.1210, 0.1210]).expand(draws, -1)
    chance = torch.rand(draws, 4)

    def picked(count: int, temperature: float) -> torch.Tensor:
        mask = gumbel_top_k(scores, torch.full((draws,), count), chance, temperature)
        assert torch.equal(mask.sum(1), torch.full((draws,), count))
        return mask.float().mean(0)

    assert picked(2, 1e-6).tolist() == [1, 1, 0, 0]
    for expected, got in ((torch.full((4,), 0.25), picked(1, 1e6)), (scores[0], picked(1, 1.0))):
        sigma = (expected * (1 - expected) / draws).sqrt()
        assert ((got - expected).abs() < 3 * sigma).all()


def test_gumbel_keeps_to_counts_and_never_takes_a_zero_score() -> None:
    scores = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]])
    for temperature in (1e-6, 0.5, 1e6):
        mask = gumbel_top_k(scores, torch.tensor([1, 3, 2]), torch.rand(3, 4), temperature)
        assert mask.sum(1).tolist() == [1, 3, 1]
        assert not mask[scores == 0].any()
