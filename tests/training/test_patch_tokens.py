"""Patch features of the convolutional image tower: their grid, their levels, and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.params import UserError
from training import features
from training.encoder import load_encoder
from training.towers import TimmTrunk, _resampled

BASE, IMAGES = Path("store/models/base"), Path("store/dataset/images.parquet")


def keys(count: int) -> list[str]:
    return [f"{i:032x}" for i in range(count)]


@pytest.fixture
def trunk(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> TimmTrunk:
    monkeypatch.setattr(features, "CACHE", Path("runs/cache/fresh"))
    return load_encoder(BASE).image.trunk


def test_cells_average_what_they_cover() -> None:
    level = torch.arange(3.0).repeat(2, 1)[None, None]  # two rows of 0, 1, 2
    torch.testing.assert_close(_resampled(level, 2, 3), level)
    # The first of two cells covers position 0 and half of position 1: (0 + 0.5 * 1) / 1.5.
    torch.testing.assert_close(_resampled(level, 1, 2), torch.tensor([[[[1 / 3, 5 / 3]]]]))
    torch.testing.assert_close(_resampled(level, 1, 1), torch.tensor([[[[1.0]]]]))


def test_tokens_are_the_levels_side_by_side_on_the_highest_one_s_grid(trunk: TimmTrunk) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 24), dtype=torch.uint8)
    with torch.inference_mode():
        low, high = trunk._maps(pixels)
        pooled, tokens = trunk.with_tokens(pixels, (0, 1))
        torch.testing.assert_close(pooled, trunk(pixels), atol=0, rtol=0)
        rows, columns = high.shape[2:]
        assert tokens.shape == (2, rows * columns, trunk.token_width((0, 1)))
        torch.testing.assert_close(tokens[:, columns + 1, low.shape[1] :], high[:, :, 1, 1])
        step = low.shape[2] // rows, low.shape[3] // columns
        cell = low[:, :, step[0] : 2 * step[0], step[1] : 2 * step[1]].mean((2, 3))
        torch.testing.assert_close(tokens[:, columns + 1, : low.shape[1]], cell)
        torch.testing.assert_close(trunk.tokens(pixels), high.flatten(2).mT)
    with pytest.raises(UserError, match=r"patch_levels: 4 is not one of"):
        trunk.token_width((1, 4))


def test_one_pass_fills_both_caches(trunk: TimmTrunk, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (32, 24)
    pooled, tokens = features.trunk_tokens(trunk, size, IMAGES, keys(6), (0, 1), "test")
    assert tokens.dtype == np.float16

    def no_pass(*_: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        for name in ("_compute", "_compute_both"):
            patch.setattr(features, name, no_pass)
        again = features.trunk_tokens(trunk, size, IMAGES, keys(6)[::-1], (1, 0), "test")
        np.testing.assert_array_equal(again[0], pooled[::-1])
        np.testing.assert_array_equal(again[1], tokens[::-1])
        np.testing.assert_array_equal(features.trunk_features(trunk, size, IMAGES, keys(6), "test"), pooled)
    more, _ = features.trunk_tokens(trunk, size, IMAGES, keys(9), (0, 1), "test")
    np.testing.assert_array_equal(more[:6], pooled)
    assert features.trunk_tokens(trunk, size, IMAGES, [], (0, 1), "test")[1].shape[2] == trunk.token_width((0, 1))


def test_half_precision_keeps_three_digits(trunk: TimmTrunk) -> None:
    from data.images import decode_rgb, to_pixels

    found = features.read_jpegs(IMAGES, keys(4))
    pixels = np.stack([to_pixels(decode_rgb(found[key]), (32, 24)).transpose(2, 0, 1) for key in keys(4)])
    _, kept = features.trunk_tokens(trunk, (32, 24), IMAGES, keys(4), (0, 1), "test")
    with torch.inference_mode():
        _, exact = trunk.with_tokens(torch.from_numpy(pixels), (0, 1))
    np.testing.assert_allclose(kept, exact.numpy(), atol=1e-4, rtol=1e-3)
