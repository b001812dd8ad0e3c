"""Towers against the libraries they come from, and the pretrained files against their stated effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from data.images import decode_rgb, to_pixels
from data.params import UserError
from tests.training import tiny
from training import weights
from training.config import ImageWeights, TextWeights, TowerSpec
from training.towers import BertTrunk, Head, TimmTrunk, fold_batch_norms
from training.weights import bert_state

ROOT = Path(__file__).resolve().parents[2]


def timm_state() -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file("tiny.safetensors")


def test_folding_batch_norms_keeps_every_level(workspace: Path) -> None:
    net = timm.create_model(tiny.ARCH)
    net.load_state_dict(timm_state())
    net.eval()
    x = torch.randn(2, 3, 32, 24)
    with torch.no_grad():
        before = [*net.forward_intermediates(x, intermediates_only=True), net.forward_features(x)]
        fold_batch_norms(net)
        after = [*net.forward_intermediates(x, intermediates_only=True), net.forward_features(x)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-4)


def test_networks_that_cannot_be_folded_are_refused() -> None:
    with pytest.raises(ValueError, match="ResNet has batch norms"):
        TimmTrunk(TowerSpec(kind="timm", arch="test_resnet", mean=(127.0,) * 3, std=(128.0,) * 3))


def test_pooled_features_by_hand(workspace: Path) -> None:
    """Mean and deviation per level, then the mean of each cell of the grid, of (pixel - 127) / 128."""
    spec = TowerSpec(kind="timm", arch=tiny.ARCH, levels=(0, 1), grid=(0, 2, 2), mean=(127.0,) * 3, std=(128.0,) * 3)
    trunk = TimmTrunk(spec).eval()
    trunk.load_unfolded(timm_state())
    pixels = torch.randint(0, 256, (2, 3, 32, 24), dtype=torch.uint8)
    net = timm.create_model(tiny.ARCH)
    net.load_state_dict(timm_state())
    with torch.no_grad():
        fine, coarse = net.eval().forward_intermediates(
            (pixels.float() - 127) / 128, indices=[0, 1], intermediates_only=True
        )
        got = trunk(pixels)
    assert got.shape == (2, trunk.width) == (2, 2 * (16 + 24) + 16 * 4)
    torch.testing.assert_close(got[:, :16], fine.mean((2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[:, 16:32], fine.std((2, 3), correction=0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(got[:, 32:56], coarse.mean((2, 3)), atol=1e-5, rtol=1e-4)
    upper_left = fine[:, :, :8, :6].mean((2, 3))
    torch.testing.assert_close(got[:, 80:].reshape(2, 16, 2, 2)[:, :, 0, 0], upper_left, atol=1e-5, rtol=1e-4)


def test_bert_equals_transformers(workspace: Path) -> None:
    from transformers import BertModel

    theirs = BertModel.from_pretrained("tiny-bert", add_pooling_layer=False).eval()
    spec, state, tokenizer = weights.text_tower(TextWeights(weights="tiny-bert", max_tokens=16))
    ours = BertTrunk(spec).eval()
    ours.load_state_dict(state)
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(["red shirts for men", "blue", "brand 1 2 3 yellow bags for women"])
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    with torch.no_grad():
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        torch.testing.assert_close(ours(ids, mask), expected, atol=1e-5, rtol=0)


def test_head_starts_linear_on_standardised_features() -> None:
    head = Head(4, 6, 3)
    sample = torch.randn(50, 4) * torch.tensor([1.0, 100.0, 0.01, 1.0]) + 5
    head.fit(sample)
    x = (sample - sample.mean(0)) / sample.std(0)
    torch.testing.assert_close(head(sample), head.linear(x), atol=1e-4, rtol=1e-3)


# --- packaged weights -------------------------------------------------------------------------------------------------


def test_packaged_image_weights_recognise_jeans() -> None:
    """All 296 tensors load strictly into timm's network, and it sees ImageNet's class 608 (jean) in catalog photos."""
    spec, state = weights.image_tower(ImageWeights())
    assert len(state) == 296
    net = timm.create_model(spec.arch).eval()
    net.load_state_dict(state, strict=True)
    drop = ROOT / "data/starter/drop-1"
    catalog = pd.read_csv(drop / "catalog.csv", dtype=str, keep_default_na=False)
    photos = {}
    for shard in ("fashion-224-00.parquet", "fashion-224-01.parquet"):
        table = pd.read_parquet(drop / shard)
        photos.update(zip(table.id, table.image, strict=True))
    jeans = [i for i in catalog.id[catalog.articleType == "Jeans"] if i in photos][:12]
    arrays = [to_pixels(decode_rgb(photos[i]), (224, 168)) for i in jeans]
    x = (torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        top = net(x).argmax(1)
    assert (top == 608).float().mean() >= 0.75


def test_packaged_sentences_are_near_by_meaning() -> None:
    """Cosines stated for these weights: 0.62 (crimson gown), 0.19 (wallet), 0.90 (not red)."""
    spec, state, tokenizer = weights.text_tower(TextWeights())
    trunk = BertTrunk(spec).eval()
    trunk.load_state_dict(state)
    tokenizer.enable_padding(pad_id=0)
    encoded = tokenizer.encode_batch(
        ["a red dress", "a crimson gown", "leather wallet for men", "a dress that is not red"]
    )
    ids, mask = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
    with torch.no_grad():
        x = nn.functional.normalize(trunk(ids, mask), dim=1)
    assert (x[0] @ x[1:].T).tolist() == pytest.approx([0.62, 0.19, 0.90], abs=0.01)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    class Deed:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path(tmp_path / "done").write_text, ("x",)

    torch.save({"weight": Deed()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth: not readable as weights"):
        weights.read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "done").exists()


def test_weights_of_another_architecture(workspace: Path) -> None:
    spec = TowerSpec(kind="timm", arch="tf_efficientnet_lite0", mean=(127.0,) * 3, std=(128.0,) * 3)
    with pytest.raises(UserError, match=r"base\.image\.weights: not weights of tf_efficientnet_lite0"):
        TimmTrunk(spec).load_unfolded(timm_state())


def test_package_that_is_not_installed() -> None:
    with pytest.raises(UserError, match="the package no-such-weights is not installed"):
        weights.package_file("no-such-weights", ".pth")


def test_bert_state_finds_prefixed_names(workspace: Path) -> None:
    state = safetensors.torch.load_file("tiny-bert/model.safetensors")
    prefixed = {f"bert.{name}": tensor for name, tensor in state.items()}
    assert bert_state(prefixed).keys() == bert_state(state).keys()
