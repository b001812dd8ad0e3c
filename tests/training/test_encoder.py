"""The dual encoder: its folder, its embeddings, its cache of trunk features, and the graphs it exports to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from data.params import UserError
from training import features
from training.encoder import DualEncoder, embed_images, embed_texts, load_encoder, save_encoder

BASE = Path("store/models/base")
IMAGES = Path("store/dataset/images.parquet")
TEXTS = ["red shirts for men", "blue bags", "red shirts for men", "brand 7 yellow watches for women , brand 9"]


@pytest.fixture
def encoder(workspace: Path) -> DualEncoder:
    return load_encoder(BASE)


def keys(count: int = 10) -> list[str]:
    return pd.read_parquet(IMAGES).image_key.tolist()[:count]


def pixels(count: int, encoder: DualEncoder) -> Tensor:
    height, width = encoder.config.image_size
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_saving_and_loading_keeps_every_byte(encoder: DualEncoder, tmp_path: Path) -> None:
    save_encoder(tmp_path / "a", encoder)
    again = load_encoder(tmp_path / "a")
    assert again.config == encoder.config
    assert not again.training
    assert torch.equal(encoder.encode_image(pixels(3, encoder)), again.encode_image(pixels(3, encoder)))
    assert torch.equal(encoder.encode_text(*encoder.tokenize(TEXTS)), again.encode_text(*again.tokenize(TEXTS)))
    save_encoder(tmp_path / "b", again)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_embeddings_are_unit_vectors_in_the_order_asked_for(encoder: DualEncoder) -> None:
    texts = embed_texts(encoder, TEXTS)
    assert texts.dtype == np.float32
    assert texts.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(texts[0], texts[2])
    np.testing.assert_allclose(texts[1:2], embed_texts(encoder, TEXTS[1:2]), atol=1e-6)
    images = embed_images(encoder, IMAGES, keys(), "test")
    assert images.shape == (10, 8)
    np.testing.assert_array_equal(images[::-1], embed_images(encoder, IMAGES, keys()[::-1], "test"))
    assert embed_texts(encoder, []).shape == (0, 8)
    assert embed_images(encoder, IMAGES, [], "test").shape == (0, 8)


def test_cached_and_direct_embeddings_agree(encoder: DualEncoder) -> None:
    from data.images import decode_rgb, to_pixels

    table = pd.read_parquet(IMAGES).set_index("image_key")
    arrays = [to_pixels(decode_rgb(table.jpeg[key]), encoder.config.image_size) for key in keys(3)]
    direct = encoder.encode_image(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(embed_images(encoder, IMAGES, keys(3), "test"), direct.detach().numpy(), atol=1e-6)


def test_tokenize_trims_to_the_longest_and_cuts_at_the_limit(encoder: DualEncoder) -> None:
    ids, mask = encoder.tokenize(["red shirts", "blue"])
    assert ids.dtype == mask.dtype == torch.int64
    assert ids.shape == (2, 4)  # [CLS] red shirts [SEP]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert encoder.tokenize(["red " * 100])[0].shape == (1, 16)


def test_padding_does_not_change_a_text(encoder: DualEncoder) -> None:
    ids, mask = encoder.tokenize(["red shirts"])
    padded = encoder.encode_text(nn.functional.pad(ids, (0, 9)), nn.functional.pad(mask, (0, 9)))
    torch.testing.assert_close(padded, encoder.encode_text(ids, mask), atol=1e-6, rtol=0)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_only_new_pictures_are_computed(encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    compute = features._compute

    def counted(trunk: nn.Module, size: tuple[int, int], images: Path, missing: list[str], label: str) -> np.ndarray:
        asked.append(missing)
        return compute(trunk, size, images, missing, label)

    monkeypatch.setattr(features, "_compute", counted)
    monkeypatch.setattr(features, "CACHE", Path("runs/cache/fresh"))
    first = embed_images(encoder, IMAGES, keys(6), "test")
    both = embed_images(encoder, IMAGES, [*keys(6), *keys(9)], "test")
    assert [sorted(a) for a in asked] == [sorted(keys(6)), sorted(keys(9)[6:])]
    np.testing.assert_array_equal(first, both[:6])
    monkeypatch.setattr(features, "CACHE", Path("runs/cache/other"))
    np.testing.assert_array_equal(both, embed_images(encoder, IMAGES, [*keys(6), *keys(9)], "test"))


def test_the_cache_knows_weights_size_and_pooling(encoder: DualEncoder) -> None:
    trunk, size = encoder.image.trunk, encoder.config.image_size
    known = features.trunk_hash(trunk, size)
    assert features.trunk_hash(load_encoder(BASE).image.trunk, size) == known
    assert features.trunk_hash(trunk, (size[0], size[1] + 4)) != known
    trunk.levels = trunk.levels[:1]
    assert features.trunk_hash(trunk, size) != known
    other = load_encoder(BASE).image.trunk
    other.net.conv_stem.bias.data[0] += 1e-3
    assert features.trunk_hash(other, size) != known


def test_heads_share_the_cache(encoder: DualEncoder) -> None:
    before = features.trunk_hash(encoder.image.trunk, encoder.config.image_size)
    encoder.image.head.linear.weight.data += 1
    assert features.trunk_hash(encoder.image.trunk, encoder.config.image_size) == before


def test_a_picture_that_is_not_there(encoder: DualEncoder) -> None:
    with pytest.raises(UserError, match=r"images\.parquet: has no picture ffff"):
        embed_images(encoder, IMAGES, ["ffff"], "test")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(workspace: Path, name: str) -> None:
    (BASE / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: not found"):
        load_encoder(BASE)


@pytest.mark.parametrize("name", ["weights.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_one_clear_error(workspace: Path, name: str) -> None:
    (BASE / name).write_bytes((BASE / name).read_bytes()[:50])
    with pytest.raises(UserError, match="do not fit together"):
        load_encoder(BASE)


def test_model_json_is_read_strictly(workspace: Path) -> None:
    content = json.loads((BASE / "model.json").read_text(encoding="utf-8"))
    content["embed_dims"] = content.pop("embed_dim")
    (BASE / "model.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.json\.embed_dims: unknown setting. Did you mean `embed_dim`"):
        load_encoder(BASE)


def test_weights_of_another_shape(workspace: Path) -> None:
    content = json.loads((BASE / "model.json").read_text(encoding="utf-8"))
    content["embed_dim"] = 9
    (BASE / "model.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="size mismatch"):
        load_encoder(BASE)


# --- export -----------------------------------------------------------------------------------------------------------


class Function(nn.Module):
    """One encoder function as a module, which is what the exporter takes."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder


class ImageFunction(Function):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_image(pixels)


class TextFunction(Function):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encoder.encode_text(ids, mask)


def run_onnx(
    module: nn.Module, example: tuple[Tensor, ...], names: list[str], shapes: object, feed: tuple[Tensor, ...]
) -> np.ndarray:
    import onnxruntime

    torch.onnx.export(
        module.eval(), example, "graph.onnx", input_names=names, output_names=["y"], dynamic_shapes=shapes, dynamo=True,
        verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession("graph.onnx")
    return session.run(None, {name: tensor.numpy() for name, tensor in zip(names, feed, strict=True)})[0]


def test_encode_image_exports_with_any_batch(encoder: DualEncoder) -> None:
    batch = torch.export.Dim("batch")
    feed = pixels(5, encoder)
    got = run_onnx(ImageFunction(encoder), (pixels(2, encoder),), ["pixels"], ({0: batch},), (feed,))
    np.testing.assert_allclose(got, encoder.encode_image(feed).detach().numpy(), atol=1e-5)


def test_encode_text_exports_with_any_batch_and_length(encoder: DualEncoder) -> None:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=16)
    shape = {0: batch, 1: length}
    feed = encoder.tokenize(TEXTS)
    got = run_onnx(TextFunction(encoder), encoder.tokenize(TEXTS[:2]), ["ids", "mask"], (shape, shape), feed)
    np.testing.assert_allclose(got, encoder.encode_text(*feed).detach().numpy(), atol=1e-5)
