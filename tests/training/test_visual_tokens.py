"""Codes of patches: where they lie, what they tell apart, and whose file they may come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.images import to_pixels
from data.params import UserError
from tests.training import small_simla as small
from training.config import TrainerConfig
from training.fused.visual_tokens import Dvae, PatchCodes, TwoViews, lloyd, load_dvae
from training.methods.simla import Simla
from training.source import Products, Source, crop_box

SIDE = 16


class Gradient:
    """A picture whose red and green tell the place, cropped at random."""

    def __init__(self) -> None:
        ramp = np.linspace(0, 255, 256).astype(np.uint8)
        red, green = np.meshgrid(ramp, ramp)
        self.image = Image.fromarray(np.stack([red, green, np.zeros_like(red)], -1))

    def take(self, positions: Any, chance: Any) -> Tensor:
        cut = [self.image.crop(crop_box(self.image.size, 0.3, chance[p])) for p in positions]
        return torch.from_numpy(np.stack([to_pixels(i, (256, 256)) for i in cut]).transpose(0, 3, 1, 2).copy())


def place(pixels: Tensor) -> Tensor:
    """Which of 16 x 16 cells of the whole picture each cell of a view shows: (B, 256)."""
    cells = torch.nn.functional.avg_pool2d(pixels[:, :2].float(), 256 // SIDE)
    column, row = (cells / 16).long().clamp(0, SIDE - 1).unbind(1)
    return (row * SIDE + column).flatten(1)


def views(view: str) -> tuple[Tensor, Tensor]:
    """The towers' and the tokenizer's view of four products."""
    products = Products(list("abcd"), np.arange(4), list("abcd"), [(f"w{i}", None) for i in range(4)])
    config = TrainerConfig(batch=4, epochs=1, threads=1, title_share=1.0)
    kind = TwoViews if view == "independent" else Source
    source = kind(products, small.encoder(), Gradient(), config, Simla.needs)
    (batch,) = source.batches(0)
    source.close()
    return batch["image"], batch.get("tokenizer_view", batch["image"])


def test_shared_view_has_codes_where_the_patches_are() -> None:
    towers, tokenizer = views("shared")
    assert len(torch.unique(place(towers))) > 100  # the crops differ
    assert (place(tokenizer) == place(towers)).float().mean() >= 0.99


def test_independent_view_has_them_elsewhere() -> None:
    towers, tokenizer = views("independent")
    assert (place(tokenizer) == place(towers)).float().mean() < 0.5


def plain() -> Tensor:
    """Red, blue, white, and black stripes on white: four pictures of 2 x 2 patches of 8 pixels."""
    pixels = torch.full((4, 3, 16, 16), 255, dtype=torch.uint8)
    pixels[0, 1:] = 0
    pixels[1, :2] = 0
    pixels[3, :, 0::4] = 0
    pixels[3, :, 1::4] = 0
    return pixels


def test_catalog_codes_tell_colour_and_texture_apart_row_by_row() -> None:
    codes = PatchCodes((2, 2), 4)
    codes.fit(plain(), 0)
    red, blue, white, striped = codes(plain()).tolist()
    assert all(len(set(found)) == 1 for found in (red, blue, white))
    assert len({red[0], blue[0], white[0], striped[0]}) == 4
    mixed = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    mixed[0, 1:, :8, 8:] = 0  # red above on the right
    mixed[0, :2, 8:, :8] = 0  # blue below on the left
    colours = codes.statistics(mixed)[0, :, :3]
    for place, picture in ((0, 2), (1, 0), (2, 1), (3, 2)):
        torch.testing.assert_close(colours[place], codes.statistics(plain())[picture, 0, :3])


def test_catalog_codes_are_the_nearest_centres_and_reproducible() -> None:
    pixels = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    one, other = PatchCodes((4, 4), 6), PatchCodes((4, 4), 6)
    one.fit(pixels, 3)
    other.fit(pixels, 3)
    assert torch.equal(one.centres, other.centres)
    points = (one.statistics(pixels) - one.shift) * one.scale
    gaps = (points[:, :, None] - one.centres).square().sum(-1)
    assert torch.equal(one(pixels), gaps.argmin(-1))
    assert set(one.state_dict()) == {"shift", "scale", "centres"}  # they go with the saved model
    with pytest.raises(UserError, match=r"methods.simla.codes: the pictures have 2 different patches only"):
        PatchCodes((2, 2), 3).fit(plain()[:2], 0)


def test_k_means_finds_what_is_apart_and_keeps_an_empty_centre() -> None:
    points = torch.tensor([[0.0], [1], [10], [11]])
    found = lloyd(points, torch.tensor([[0.0], [1], [500]]))
    assert found[:, 0].tolist() == pytest.approx([0.0, 22 / 3, 500.0]) or found[2, 0] == 500
    torch.testing.assert_close(lloyd(points, torch.tensor([[0.0], [10]])), torch.tensor([[0.5], [10.5]]))


def tiny_dvae() -> Dvae:
    torch.manual_seed(0)
    return Dvae((2, 3), 7, width=8)


def test_dvae_has_the_published_layout_and_one_code_per_patch() -> None:
    model = tiny_dvae()
    names = set(model.state_dict())
    assert {
        "blocks.input.w", "blocks.input.b", "blocks.group_1.block_2.res_path.conv_4.b", "blocks.output.conv.w",
        "blocks.group_2.block_1.id_path.w", "blocks.group_4.block_2.res_path.conv_1.w",
    } <= names  # fmt: skip
    assert not any(name.startswith("blocks.group_2.block_2.id_path") for name in names)
    assert model.state_dict()["blocks.group_4.block_1.res_path.conv_1.w"].shape == (16, 32, 3, 3)
    assert model.logits(torch.rand(1, 3, 16, 24)).shape == (1, 7, 2, 3)
    codes = model(torch.randint(0, 256, (4, 3, 40, 60), dtype=torch.uint8))
    assert codes.shape == (4, 6)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_dvae_codes_are_row_major_and_of_mapped_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_dvae(), []

    def logits(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.eye(7)[:6].T.reshape(1, 7, 2, 3)

    monkeypatch.setattr(model, "logits", logits)
    assert model(torch.full((1, 3, 16, 24), 255, dtype=torch.uint8)).tolist() == [[0, 1, 2, 3, 4, 5]]
    model(torch.zeros(1, 3, 16, 24, dtype=torch.uint8))
    assert seen[0].mean().item() == pytest.approx(0.9, abs=1e-5)
    assert seen[1].mean().item() == pytest.approx(0.1, abs=1e-5)


def test_dvae_block_by_hand() -> None:
    """id_path(x) + res_path(x) / 64, the residual path of four convolutions each after a ReLU."""
    block = tiny_dvae().blocks["group_1"]["block_1"]
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        branch = x
        for i, padding in ((1, 1), (2, 1), (3, 1), (4, 0)):
            conv = block.res_path[f"conv_{i}"]
            branch = torch.nn.functional.conv2d(branch.clamp_min(0), conv.w, conv.b, padding=padding)
        torch.testing.assert_close(block(x), x + branch / 64)


def test_dvae_file_is_read_or_refused_by_name(tmp_path: Path) -> None:
    source, model = tiny_dvae(), tiny_dvae()
    with torch.no_grad():
        source.blocks["input"].w.add_(1)
    torch.save(source.state_dict(), tmp_path / "encoder.pt")
    load_dvae(model, tmp_path / "encoder.pt")
    assert torch.equal(model.blocks["input"].w, source.blocks["input"].w)
    with pytest.raises(UserError, match=r"nowhere.pt not found. Save the state_dict of DALL-E's dVAE encoder there"):
        load_dvae(model, tmp_path / "nowhere.pt")
    torch.save(source, tmp_path / "pickled.pt")
    with pytest.raises(UserError, match=r"pickled.pt: not readable as weights"):
        load_dvae(model, tmp_path / "pickled.pt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt is not the state of DALL-E's dVAE encoder with 7 codes"):
        load_dvae(model, tmp_path / "other.pt")
