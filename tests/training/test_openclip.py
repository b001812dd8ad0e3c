"""Own CLIP towers against open_clip's: embeddings, gradients, names, tokens, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.params import UserError
from training import base, openclip
from training.clip_blocks import quick_gelu
from training.config import ClipWeights, TowerSpec
from training.encoder import embed_texts, load_encoder, save_encoder
from training.openclip import ClipImageTrunk, ClipTextTrunk

CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture
def clip_model(tmp_path: Path) -> tuple[str, Path]:
    """A tiny CLIP registered with open_clip, and a file of its random weights."""
    import open_clip

    name = "tiny-fitting-quickgelu"
    (tmp_path / f"{name}.json").write_text(json.dumps({**CLIP_CONFIG, "quick_gelu": True}), encoding="utf-8")
    open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(2)
    model = open_clip.create_model(name)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    return name, tmp_path / "clip.pt"


def test_a_clip_model_gives_open_clips_embeddings(clip_model: tuple[str, Path], tmp_path: Path) -> None:
    import open_clip

    name, file = clip_model
    encoder = base.clip_encoder(ClipWeights(model=name, weights=str(file)))
    save_encoder(tmp_path / "model", encoder)
    encoder = load_encoder(tmp_path / "model")
    theirs = open_clip.create_model(name, pretrained=str(file)).eval()
    texts = ["Puma Women's Black Scarf", "a 2-in-1  coat, café style"]
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    with torch.no_grad():
        expected = theirs.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)
        torch.testing.assert_close(torch.from_numpy(embed_texts(encoder, texts)), expected, atol=1e-5, rtol=0)
        expected = theirs.encode_image((pixels / 255 - mean) / std, normalize=True)
        torch.testing.assert_close(encoder.encode_image(pixels), expected, atol=1e-5, rtol=0)
    assert encoder.logit_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_tokens_after_the_end_do_not_matter(clip_model: tuple[str, Path]) -> None:
    encoder = base.clip_encoder(ClipWeights(model=clip_model[0], weights=str(clip_model[1])))
    ids, mask = encoder.tokenize(["a red dress"])
    changed = nn.functional.pad(ids, (0, 20), value=320)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_text(changed, nn.functional.pad(mask, (0, 20))),
                                   encoder.encode_text(ids, mask), atol=1e-6, rtol=0)  # fmt: skip


def test_clip_tokens_equal_open_clips() -> None:
    import open_clip

    texts = ["", "###", "Puma Men's Graphic T-shirt", "2011  A&B  café™ x50", "don't stop!!", "naïve fit 10.5 cm"]
    tokenizer = openclip.tokenizer()
    theirs = open_clip.SimpleTokenizer()
    for text in texts:
        expected = [theirs.sot_token_id, *theirs.encode(text), theirs.eot_token_id]
        assert tokenizer.encode(text).ids == expected, text
    assert tokenizer.encode("###").ids == [49406, 2, 15483, 49407]


def test_the_active_activation_is_found_and_matters() -> None:
    """A random-weight ViT-B/32 with QuickGELU and with GELU: same weights, other embeddings."""
    import open_clip

    torch.manual_seed(0)
    quick = open_clip.create_model("ViT-B-32-quickgelu").eval()
    plain = open_clip.create_model("ViT-B-32").eval()
    plain.load_state_dict(quick.state_dict())
    assert openclip.quick_gelu_active(quick)
    assert not openclip.quick_gelu_active(plain)
    text = open_clip.tokenize(["a red dress"])
    with torch.no_grad():
        gap = (quick.encode_text(text, normalize=True) - plain.encode_text(text, normalize=True)).abs().max()
    assert gap > 1e-3


def test_openai_weights_without_quickgelu_are_refused(
    clip_model: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    model = open_clip.create_model(clip_model[0])
    for block in model.modules():
        if hasattr(block, "gelu"):
            block.gelu = nn.GELU()
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: model)
    with pytest.raises(UserError, match="were trained with QuickGELU; use `tiny-fitting-quickgelu-quickgelu`"):
        openclip.pretrained(clip_model[0], "openai")


def test_unknown_clip_model_and_missing_file(clip_model: tuple[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no open_clip model of that name; did you mean ViT-B-32"):
        openclip.pretrained("ViT-B-33", "")
    with pytest.raises(UserError, match=r"cannot load tiny-fitting-quickgelu with weights `nowhere\.pt`"):
        openclip.pretrained(clip_model[0], "nowhere.pt")


# --- the layers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["ViT-B-32-quickgelu", "ViT-B-32"])
def towers(request: pytest.FixtureRequest) -> tuple[Any, ClipImageTrunk, ClipTextTrunk]:
    """open_clip's random ViT-B/32 and ours with its weights. Biases and norms are moved off their start of 0 and 1."""
    import open_clip

    torch.manual_seed(0)
    theirs = open_clip.create_model(request.param, force_custom_text=True).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    image, text = trunks(request.param, theirs)
    return theirs, image, text


def trunks(model: str, theirs: Any) -> tuple[ClipImageTrunk, ClipTextTrunk]:
    """Our towers with the weights of open_clip's `theirs`."""
    import open_clip

    config = open_clip.get_model_config(model)
    common = {"embed_dim": config["embed_dim"], "quick_gelu": config.get("quick_gelu", False)}
    image = ClipImageTrunk(
        TowerSpec(kind="open_clip", arch=model, shape={**common, "vision_cfg": config["vision_cfg"]},
                  mean=openclip.MEAN, std=openclip.STD)
    )  # fmt: skip
    text = ClipTextTrunk(TowerSpec(kind="open_clip", arch=model, shape={**common, "text_cfg": config["text_cfg"]}))
    image.load_open_clip(theirs.visual.state_dict())
    text.load_open_clip(theirs.text.state_dict())
    return image, text


def padded(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of random texts; the end token is the highest."""
    torch.manual_seed(1)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, 49406, (length,))
        ids[row, length - 1] = 49407
        mask[row, :length] = 1
    return ids, mask


def normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() - torch.tensor(openclip.MEAN).view(3, 1, 1)) / torch.tensor(openclip.STD).view(3, 1, 1)


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest entry."""
    torch.testing.assert_close(got, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_image_outputs_and_gradients_are_open_clips(towers: tuple[Any, ClipImageTrunk, ClipTextTrunk]) -> None:
    theirs, image, _ = towers
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    weights = torch.randn(2, 512)
    expected, got = theirs.visual(normalised(pixels)), image(pixels)
    close(got, expected)
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    assert_equal_gradients(image, theirs.visual, openclip.IMAGE_NAMES)


def test_text_outputs_and_gradients_are_open_clips(towers: tuple[Any, ClipImageTrunk, ClipTextTrunk]) -> None:
    """Cut to 12 tokens here, padded to 77 there."""
    theirs, _, text = towers
    ids, mask = padded([12, 5, 3], 77)
    weights = torch.randn(3, 512)
    expected, got = theirs.text(ids), text(ids[:, :12], mask[:, :12])
    close(got, expected)
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    assert_equal_gradients(text, theirs.text, openclip.TEXT_NAMES)


def assert_equal_gradients(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    found = openclip.renamed({n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}, names)
    assert found.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, found[name])


def test_the_short_last_layer_is_the_whole_one(towers: tuple[Any, ClipImageTrunk, ClipTextTrunk]) -> None:
    """`forward` computes the last layer at one token; `tokens`, `contextual` and `pool` compute it everywhere."""
    _, image, text = towers
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    ids, mask = padded([9, 4], 10)
    with torch.no_grad():
        tokens = image.tokens(pixels)
        assert tokens.shape == (2, 50, 512)
        close(tokens[:, 0], image(pixels))
        words = text.look_up(ids)
        features = text.contextual(words, mask)
        assert features.shape == (2, 10, 512)
        close(text.pool(features, mask), text(ids, mask))
        close(text.project(features)[1, 3], text(ids, mask)[1])


def test_patch_features_are_open_clips(towers: tuple[Any, ClipImageTrunk, ClipTextTrunk]) -> None:
    theirs, image, _ = towers
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    theirs.visual.output_tokens = True
    with torch.no_grad():
        _, tokens = theirs.visual(normalised(pixels))
        close(image.tokens(pixels)[:, 1:], tokens @ theirs.visual.proj)
    theirs.visual.output_tokens = False


def test_weights_go_back_to_open_clip(towers: tuple[Any, ClipImageTrunk, ClipTextTrunk]) -> None:
    theirs, image, text = towers
    for ours, state in ((image, theirs.visual.state_dict()), (text, theirs.text.state_dict())):
        back = ours.open_clip_state()
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)


def test_quick_gelu_by_hand() -> None:
    """x sigmoid(1.702 x) at 0, 1 and -2: 0, 1 / (1 + e^-1.702), -2 / (1 + e^3.404)."""
    got = quick_gelu(torch.tensor([0.0, 1.0, -2.0]))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.8457958, -0.0643379]))


def test_rectangular_pictures_and_patches() -> None:
    """4 x 3 patches of 8 x 16 pixels, in reading order, as a strided convolution sees them."""
    shape = {"layers": 1, "width": 32, "head_width": 16, "image_size": [32, 48], "patch_size": [8, 16]}
    spec = TowerSpec(kind="open_clip", arch="t", shape={"embed_dim": 8, "quick_gelu": False, "vision_cfg": shape},
                     mean=openclip.MEAN, std=openclip.STD)  # fmt: skip
    trunk = ClipImageTrunk(spec)
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8).permute(0, 3, 1, 2)  # as decoded: channels last
    with torch.no_grad():
        patches = trunk.patches(normalised(pixels)).flatten(2).transpose(1, 2)
        first = trunk.first.expand(2, 1, -1)
        expected = trunk.norm(torch.cat([first, patches], 1) + trunk.positions)
        torch.testing.assert_close(trunk.embed(pixels), expected, atol=1e-4, rtol=0)


def test_random_towers_start_in_a_sane_range() -> None:
    """A tower made without weights gives finite embeddings of ordinary size, in bf16 too."""
    shape = {"embed_dim": 16, "quick_gelu": True, **{k: v for k, v in CLIP_CONFIG.items() if k != "embed_dim"}}
    torch.manual_seed(0)
    text = ClipTextTrunk(TowerSpec(kind="open_clip", arch="t", shape=shape))
    ids, mask = padded([6, 3], 6)
    with torch.no_grad():
        whole = text(ids, mask)
        with torch.autocast("cpu", torch.bfloat16):
            rough = text(ids, mask)
    assert 0.1 < whole.std() < 10
    assert nn.functional.cosine_similarity(whole, rough.float()).min() > 0.999


@pytest.mark.parametrize(
    ("model", "words"),
    [("RN50", "its layers is"), ("coca_ViT-B-32", "its "), ("ViT-B-16-SigLIP", "its timm_model_name is vit_base")],
)
def test_other_architectures_are_refused_by_name(model: str, words: str) -> None:
    import open_clip

    config = open_clip.get_model_config(model)
    shape = {"embed_dim": config["embed_dim"], "quick_gelu": False, "vision_cfg": config["vision_cfg"]}
    with pytest.raises(UserError, match=f"{model}: {words}"):
        ClipImageTrunk(TowerSpec(kind="open_clip", arch=model, shape=shape, mean=openclip.MEAN, std=openclip.STD))


def test_towers_leave_for_onnx_with_any_batch_and_length(tmp_path: Path, clip_model: tuple[str, Path]) -> None:
    import onnxruntime

    encoder = base.clip_encoder(ClipWeights(model=clip_model[0], weights=str(clip_model[1])))
    free = torch.export.Dim.DYNAMIC
    cases: list[tuple[nn.Module, tuple[Tensor, ...], tuple[dict[int, Any], ...], tuple[Tensor, ...]]] = [
        (encoder.text.trunk, padded([5, 3], 6), ({0: free, 1: free}, {0: free, 1: free}), padded([9, 2, 4], 9)),
        (encoder.image.trunk, (torch.zeros(2, 3, 32, 32, dtype=torch.uint8),), ({0: free},),
         (torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8),)),
    ]  # fmt: skip
    for trunk, example, shapes, inputs in cases:
        path = tmp_path / "tower.onnx"
        torch.onnx.export(trunk, example, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
        session = onnxruntime.InferenceSession(path)
        feed = {slot.name: value.numpy() for slot, value in zip(session.get_inputs(), inputs, strict=True)}
        with torch.no_grad():
            close(torch.from_numpy(session.run(None, feed)[0]), trunk(*inputs))
