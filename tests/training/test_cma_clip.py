"""CMA-CLIP as a method: what its logits may depend on, missing modalities, its batches, and what it serves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from data.params import UserError
from training import trainer
from training.attributes import report
from training.attributes import source as attribute_source
from training.attributes.modality import soft_itc
from training.attributes.tokens import sequences
from training.config import EncoderConfig, TowerSpec, TrainerConfig
from training.encoder import DualEncoder, load_encoder
from training.labels import labels
from training.methods.cma_clip import CmaClip
from training.openclip import MEAN, STD, tokenizer
from training.source import load_products
from training.task import DATASET, Batch, Tokens

BASE, IMAGES = Path("store/models/base"), DATASET / "images.parquet"
CLASSES = {"gender": ("men", "women"), "season": ("summer", "winter")}
SHORT, LONG = "red shirts", " ".join(["blue green yellow watches for women brand 1 2 3"] * 3)
FROZEN = TrainerConfig(epochs=1, batch=8, frozen=("image.trunk", "text.trunk"), precision="fp32", threads=1)


def keys(count: int, first: int = 0) -> list[str]:
    return [f"{i:032x}" for i in range(first, first + count)]


def task(encoder: DualEncoder, **config: object) -> CmaClip:
    """A task whose weights are far from their small start, in eval mode."""
    torch.manual_seed(4)
    made = CmaClip.build(CmaClip.Config(**{"classes": CLASSES, **config}), encoder)  # type: ignore[arg-type]
    for parameter in made.network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    made.rows = 8
    return made.eval()


@pytest.fixture
def encoder(workspace: Path) -> DualEncoder:
    return load_encoder(BASE)


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    """A tiny CLIP with random weights."""
    torch.manual_seed(6)
    common = {"embed_dim": 16, "quick_gelu": True}
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
    config = EncoderConfig(
        image_size=(32, 32), embed_dim=16, max_tokens=77,
        image=TowerSpec(kind="open_clip", arch="tiny", shape={**common, "vision_cfg": vision}, mean=MEAN, std=STD),
        text=TowerSpec(kind="open_clip", arch="tiny", shape={**common, "text_cfg": text}),
    )  # fmt: skip
    return DualEncoder(config, tokenizer()).eval()


def batch(encoder: DualEncoder, *texts: str) -> Batch:
    """Random pixels, the same for every text, and the texts' tokens."""
    ids, mask = encoder.tokenize(texts)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, 256, (1, 3, *encoder.config.image_size), dtype=torch.uint8, generator=generator)
    has_text = torch.ones(len(texts), dtype=torch.bool)
    return {"image": pixels.expand(len(texts), -1, -1, -1), "caption": Tokens(ids, mask), "has_text": has_text}


@torch.inference_mode()
def probabilities(made: CmaClip, given: Batch) -> Tensor:
    """All tasks side by side (b, ΣC)."""
    return torch.cat(list(made.recognise(given)[0].values()), 1)


def force(made: CmaClip, image: bool) -> None:
    """Let every gate give all weight to one modality."""
    for head in made.network.tasks.values():
        head.gate.bias.data = torch.tensor([100.0, -100.0] if image else [-100.0, 100.0])  # type: ignore[union-attr]
        for vector in head.gate.vectors:  # type: ignore[union-attr]
            vector.data.zero_()


# --- P3, P6 and the tokens of CLIP ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timm and bert", "clip", "clip, fresh"])
def test_padding_and_what_lies_behind_the_end_do_not_matter(kind: str, encoder: DualEncoder, clip: DualEncoder) -> None:
    towers = encoder if kind == "timm and bert" else clip
    made = task(towers, token_proj="fresh" if kind == "clip, fresh" else "tower")
    alone, beside = batch(towers, SHORT), batch(towers, SHORT, LONG)
    assert beside["caption"].ids.shape[1] > 2 * alone["caption"].ids.shape[1]
    expected = probabilities(made, alone)
    torch.testing.assert_close(probabilities(made, beside)[:1], expected, atol=1e-5, rtol=0)
    tokens = beside["caption"]
    overwritten = Tokens(torch.where(tokens.mask > 0, tokens.ids, 5), tokens.mask)
    torch.testing.assert_close(probabilities(made, {**beside, "caption": overwritten})[:1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [0, 2])
def test_only_attention_carries_the_text_into_the_image_token(encoder: DualEncoder, layers: int) -> None:
    made = task(encoder, layers=layers, gate_bias=True)
    force(made, image=True)
    found = probabilities(made, batch(encoder, SHORT, "blue watches for women"))
    assert torch.allclose(found[0], found[1], atol=1e-6) == (layers == 0)
    force(made, image=False)
    found = probabilities(made, batch(encoder, SHORT, "blue watches for women"))
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_every_patch_and_word_reaches_the_answer(encoder: DualEncoder) -> None:
    """Not the two global tokens alone: that would be the ablation."""
    made = task(encoder)
    seen: list[tuple[int, ...]] = []
    made.network.attention.layers[0].register_forward_hook(lambda _, given, out: seen.append(tuple(out.shape)))
    given = batch(encoder, SHORT)
    probabilities(made, given)
    rows, columns = encoder.image.trunk._maps(given["image"])[-1].shape[2:]
    assert seen == [(1, 1 + given["caption"].ids.shape[1] + 1 + rows * columns, 8)]


def test_clip_tokens_are_projected_and_the_end_is_read(clip: DualEncoder) -> None:
    made, given = task(clip, layers=0), batch(clip, SHORT, LONG)
    norm = made.network.attention.norm
    with torch.inference_mode():
        tokens, a, b = made.fuse(given, torch.ones(2, 2, dtype=torch.bool))
        torch.testing.assert_close(b, clip.text.trunk(given["caption"].ids, given["caption"].mask), atol=1e-5, rtol=0)
        torch.testing.assert_close(a, clip.image.trunk(given["image"]), atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens, norm(torch.stack([a, b], 1)))
        whole = task(clip, layers=1)
        s = sequences(clip, given, None, None, ())
        torch.testing.assert_close(s.text[torch.arange(2), s.end], b, atol=1e-5, rtol=0)
        torch.testing.assert_close(s.image[:, 0], a, atol=1e-5, rtol=0)
        assert s.end.tolist() == [n - 1 for n in given["caption"].mask.sum(1).tolist()]
        assert whole.network.words is None
        assert task(clip, token_proj="fresh").network.words.weight.shape == (16, 24)  # type: ignore[union-attr]


def test_every_task_has_a_gate_of_its_own(encoder: DualEncoder) -> None:
    made, given = task(encoder), batch(encoder, SHORT)
    with torch.inference_mode():
        before = made.recognise(given)[1]
        for vector in made.network.tasks["gender"].gate.vectors:  # type: ignore[union-attr]
            vector.add_(torch.randn(8))
        after = made.recognise(given)[1]
    assert not torch.allclose(before[:, 0], after[:, 0])
    torch.testing.assert_close(before[:, 1], after[:, 1], atol=0, rtol=0)


def test_new_modules_learn_at_their_own_rate_and_gates_do_not_decay(encoder: DualEncoder) -> None:
    made = task(encoder)
    optimiser = trainer.make_optimiser(made, TrainerConfig(lr=1e-5, head_lr=1e-3, weight_decay=0.1))
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    assert all(groups[id(p)]["factor"] == pytest.approx(100) for p in made.network.parameters())
    assert groups[id(encoder.text.trunk.words.weight)]["factor"] == 1
    for head in made.network.tasks.values():
        assert all(groups[id(p)]["weight_decay"] == 0 for p in head.gate.parameters())  # type: ignore[union-attr]


# --- losses -----------------------------------------------------------------------------------------------------------


def outputs(made: CmaClip, encoder: DualEncoder, count: int = 4) -> dict[str, Tensor]:
    given = dict(batch(encoder, *[f"red shirts {i // 2}" for i in range(count)]))
    given["labels"] = torch.tensor([[i % 2, -1] for i in range(count)])
    given["text"] = torch.arange(count) // 2
    given["place"] = torch.arange(count)
    return made.encode(given, 0)


def test_two_stages_and_the_weight_of_the_contrastive_loss(encoder: DualEncoder) -> None:
    made = task(encoder, beta=0.5, itc_epochs=2, task_weights={"gender": 2.0})
    found = outputs(made, encoder)
    made.before_step(0, 1.9)
    parts = made.losses(found, 0)
    assert parts["loss"].item() == parts["itc"].item() > 0
    made.before_step(1, 2.0)
    later = made.losses(found, 1)
    assert later["loss"].item() == pytest.approx(later["gender"].item() + 0.5 * later["itc"].item())
    single = dataclasses.replace(made.config, task_weights={})
    made.config = single
    assert made.losses(found, 1)["gender"].item() == pytest.approx(later["gender"].item() / 2)
    with pytest.raises(UserError, match="`colour` is not one of the tasks gender, season"):
        task(encoder, task_weights={"colour": 2.0})


def test_the_contrastive_loss_comes_before_attention_and_leaves_out_rows_without_a_text(encoder: DualEncoder) -> None:
    made = task(encoder)
    found = outputs(made, encoder)
    itc = made.losses(found, 0)["itc"]
    made.zero_grad()
    itc.backward(retain_graph=True)
    assert all(p.grad is None for p in made.network.parameters())
    assert encoder.image.head.linear.weight.grad is not None
    fewer = {**found, "has_text": torch.tensor([True, True, True, False])}
    broken = {**fewer, "text": found["text"] + torch.tensor([[0.0]] * 3 + [[9.0]])}
    assert made.losses(fewer, 0)["itc"].item() == made.losses(broken, 0)["itc"].item() != itc.item()


def test_equal_titles_are_not_each_other_s_negatives(encoder: DualEncoder) -> None:
    made = task(encoder)
    # Texts of their own per row: where equal titles have equal embeddings, the loss is the same with and without.
    found = outputs(made, encoder) | {"image": torch.eye(4, 8), "text": torch.eye(4, 8).roll(1, 1)}
    same = torch.tensor([[True, True, False, False]] * 2 + [[False, False, True, True]] * 2)
    expected = soft_itc(found["image"], found["text"], made.scale(), same)
    assert made.losses(found, 0)["itc"].item() == pytest.approx(expected.item())
    apart = soft_itc(found["image"], found["text"], made.scale(), torch.eye(4) > 0)
    assert apart.item() != pytest.approx(expected.item(), abs=1e-3)


# --- modalities that are missing --------------------------------------------------------------------------------------


def test_training_hides_one_side_at_times_and_never_both(encoder: DualEncoder) -> None:
    made = task(encoder, modality_dropout=0.3)
    made.rows = 4000
    hidden = made.hidden({"place": torch.arange(4000)}, 3)
    assert hidden.float().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert not hidden.all(1).any()
    torch.testing.assert_close(made.hidden({"place": torch.arange(10, 20)}, 3), hidden[10:20])
    made.rows, seen = 8, []
    made.network.attention.register_forward_pre_hook(lambda _, given: seen.append((given[1], given[4])))
    given = dict(batch(encoder, *[SHORT] * 8)) | {
        "labels": torch.zeros(8, 2, dtype=torch.int64), "text": torch.zeros(8, dtype=torch.int64),
        "place": torch.arange(8), "has_text": torch.arange(8) % 2 == 0,
    }  # fmt: skip
    made.train()
    for step in range(20):
        made.encode(given, step)
    text, image = (torch.stack([pair[side].any(1) for pair in seen]) for side in (0, 1))
    assert (text | image).all()
    assert image[:, 1::2].all()  # a row without a text keeps its picture
    assert not image[:, ::2].all()
    assert not text[:, ::2].all()


@pytest.mark.parametrize("modalities", ["image", "text"])
def test_controls_see_one_modality(encoder: DualEncoder, modalities: str) -> None:
    made = task(encoder, modalities=modalities)
    given = batch(encoder, SHORT, "blue watches for women")
    other = dict(given) | {"image": 255 - given["image"]}
    by_text = probabilities(made, given)
    assert torch.equal(by_text[0], by_text[1]) == (modalities == "image")
    assert torch.allclose(probabilities(made, other), by_text, atol=1e-6) == (modalities == "text")


def test_attributes_of_products_with_and_without_a_text(encoder: DualEncoder) -> None:
    made = task(encoder)
    texts = [SHORT, None, LONG, ""]
    found = made.attributes(IMAGES, keys(4), texts)
    assert {name: names for name, (names, _) in found.items()} == {k: list(v) for k, v in CLASSES.items()}
    for _, values in found.values():
        assert values.shape == (4, 2)
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-6)
    alone = made.attributes(IMAGES, keys(1, 3), [None])
    np.testing.assert_allclose(found["gender"][1][3], alone["gender"][1][0], atol=1e-5)
    weights = made.modality_weights(IMAGES, keys(4), texts)["season"]
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights[[1, 3]], [[1, 0], [1, 0]])
    assert (weights[[0, 2]] > 0).all()
    assert not made.training
    assert made.attributes(IMAGES, [], [])["gender"][1].shape == (0, 2)


def test_pixels_and_cached_features_give_the_same_answer(encoder: DualEncoder, clip: DualEncoder) -> None:
    made = task(encoder, patch_levels=(0, 1))
    cached = made.attributes(IMAGES, keys(3), [SHORT] * 3)["gender"][1]
    pixels = torch.from_numpy(np.stack([live_pixels(key, encoder) for key in keys(3)]))
    found = probabilities(made, {**batch(encoder, *[SHORT] * 3), "image": pixels})
    np.testing.assert_allclose(cached, found[:, :2].numpy(), atol=1e-3)  # tokens are kept in half precision
    assert task(clip).attributes(IMAGES, keys(2), [SHORT, None])["season"][1].shape == (2, 2)


def live_pixels(key: str, encoder: DualEncoder) -> np.ndarray:
    from data.images import decode_rgb, to_pixels
    from training.features import read_jpegs

    return to_pixels(decode_rgb(read_jpegs(IMAGES, [key])[key]), encoder.config.image_size).transpose(2, 0, 1)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_hold_titles_labels_and_the_tokens_of_frozen_towers(encoder: DualEncoder) -> None:
    made = CmaClip.build(CmaClip.Config(patch_levels=(0, 1)), encoder)
    assert made.tasks == ["gender", "season", "usage"]  # no colour or article has ten products
    source = made.source(FROZEN, "test")
    given = source.batches(0)[0]
    rows = source.row_ids(0)
    np.testing.assert_array_equal(given["labels"].numpy(), labels(DATASET, rows)[:, 2:])
    titles = dict(
        zip(*(lambda p: (p.row_ids, [t for t, _ in p.captions]))(load_products(DATASET, "train")), strict=True)
    )
    assert given["has_text"].tolist() == [titles[row] is not None for row in rows]
    for place, row in enumerate(rows):
        if titles[row] is not None:
            ids, mask = encoder.tokenize([titles[row] or ""])
            found, length = given["caption"], ids.shape[1]
            assert torch.equal(found.ids[place, :length], ids[0])
            with torch.inference_mode():
                tokens = encoder.text.trunk.contextual(encoder.text.trunk.look_up(ids), mask)
            torch.testing.assert_close(given["text_tokens"][place, :length], tokens[0], atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(found.features[place], encoder.text.trunk.pool(tokens, mask)[0])
            assert not given["text_tokens"][place, length:].any()
    made.rows = 8
    parts = made.training_step(given, 0)
    source.close()
    for layer, width in ((made.network.words, 16), (made.network.patches, 40)):
        assert layer.shift.shape == (width,)  # type: ignore[union-attr]
        assert layer.shift.any()  # type: ignore[union-attr]
    assert torch.isfinite(parts["loss"])


@pytest.mark.parametrize(("frozen", "token_proj"), [((), "tower"), ((), "fresh"), (FROZEN.frozen, "tower")])
def test_clip_towers_learn_from_pixels_or_stay_as_they_are(
    workspace: Path, clip: DualEncoder, frozen: tuple[str, ...], token_proj: str
) -> None:
    """The paper fine-tunes both towers; frozen ones give the same step from their cached tokens."""
    made = task(clip, token_proj=token_proj)
    source = made.source(dataclasses.replace(FROZEN, frozen=frozen, crop=1.0), "test")
    given = source.batches(0)[0]
    source.close()
    assert (given["image"].dtype == torch.uint8) == (not frozen)
    made.zero_grad()
    loss = made.training_step(given, 0)["loss"]
    if frozen:
        live = dict(given) | {"caption": dataclasses.replace(given["caption"], features=None)}
        del live["image_tokens"], live["text_tokens"]
        live["image"] = torch.from_numpy(np.stack([live_pixels(f"{int(r, 16):032x}", clip) for r in source.row_ids(0)]))
        assert made.training_step(live, 0)["loss"].item() == pytest.approx(loss.item(), rel=1e-3)
        return
    loss.backward()
    for trunk in (clip.image.trunk, clip.text.trunk):
        assert all(p.grad is not None and p.grad.any() for p in trunk.layers[0].parameters())
    clip.zero_grad()


def test_fresh_projections_cannot_read_cached_clip_tokens(workspace: Path, clip: DualEncoder) -> None:
    with pytest.raises(UserError, match="token_proj: `fresh` needs pixels"):
        task(clip, token_proj="fresh").source(FROZEN, "test")


def test_a_title_that_is_missing_is_not_replaced_by_the_answers(encoder: DualEncoder) -> None:
    """Product 1 has no title; its derived caption would name its gender."""
    made = CmaClip.build(CmaClip.Config(), encoder)
    source = made.source(dataclasses.replace(FROZEN, title_share=0.0), "test")
    shown = [source.texts.distinct[place] for place in np.unique(source.own[:, 0][source.own[:, 0] >= 0])]
    assert all(text.startswith("brand") for text in [*shown, *source.texts.distinct])
    for step in range(source.steps):
        given = source.batches(step)[0]
        missing = [row == f"{1:016x}" for row in source.row_ids(step)]
        assert given["has_text"].tolist() == [not absent for absent in missing]
    source.close()


def test_without_attention_no_tokens_are_made(encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_tokens(*_: object) -> None:
        raise AssertionError("tokens computed")

    monkeypatch.setattr(attribute_source, "trunk_tokens", no_tokens)
    made = CmaClip.build(CmaClip.Config(layers=0, gate="concat"), encoder)
    source = made.source(FROZEN, "test")
    given = source.batches(0)[0]
    source.close()
    made.rows = 8
    assert not {"image_tokens", "text_tokens"} & given.keys()
    assert made.network.patches is None
    assert torch.isfinite(made.training_step(given, 0)["loss"])
    assert made.attributes(IMAGES, keys(2), [SHORT, None])["gender"][1].shape == (2, 2)


# --- validation, record and export ------------------------------------------------------------------------------------


def test_validation_is_the_mean_accuracy_of_the_tasks(encoder: DualEncoder) -> None:
    made = task(encoder)
    found = made.validate()
    products = load_products(DATASET, "val")
    values = made.attributes(IMAGES, products.image_keys, [title for title, _ in products.captions])
    right = {
        name: float((values[name][1].argmax(1) == labels(DATASET, products.row_ids)[:, column]).mean())
        for name, column in (("gender", 2), ("season", 3))
    }
    assert next(iter(found)) == "val_accuracy"
    assert found["val_accuracy"] == pytest.approx(sum(right.values()) / 2, abs=1e-4)
    assert found["val_accuracy_gender"] == pytest.approx(right["gender"], abs=1e-4)
    assert 0 < found["lambda_image_season"] < 1


def test_the_record_shows_how_tasks_weigh(encoder: DualEncoder, tmp_path: Path) -> None:
    class Run:
        out, tables, pictures = tmp_path, {}, {}

        def table(self, title: str, rows: list[dict[str, object]]) -> None:
            self.tables[title] = rows

        def picture(self, title: str, path: Path) -> None:
            self.pictures[title] = path

    run = Run()
    task(encoder).report(run)  # type: ignore[arg-type]
    (rows,) = run.tables.values()
    assert [row["task"] for row in rows] == ["gender", "season"]
    assert all(row["picture"] + row["title"] == pytest.approx(1) for row in rows)
    assert run.pictures["Modality weights"] == tmp_path / report.PICTURE
    assert (tmp_path / report.PICTURE).stat().st_size > 1000


def test_the_served_function_is_the_same_in_onnx(encoder: DualEncoder, tmp_path: Path) -> None:
    """Other batch sizes and lengths than the example's, and a product without a text."""
    made = task(encoder, layers=1)
    function = made.export_spec().modules["attributes"]
    sizes = {"batch": torch.export.Dim("batch", min=1), "length": torch.export.Dim("length", min=1, max=16)}
    torch.onnx.export(
        function.module, tuple(function.inputs.values()), tmp_path / "a.onnx", dynamo=True, opset_version=18,
        input_names=list(function.inputs), output_names=list(function.outputs), external_data=False, verbose=False,
        dynamic_shapes=tuple({axis: sizes[name] for axis, name in function.axes[k].items()} for k in function.inputs),
    )  # fmt: skip
    ids, mask = encoder.tokenize([SHORT, "blue watches for women brand 3", "-"])
    mask[2] = 0
    pixels = torch.from_numpy(np.stack([live_pixels(key, encoder) for key in keys(3)]))
    given = {"pixels": pixels.float().numpy(), "ids": ids.numpy(), "mask": mask.numpy()}
    served = onnxruntime.InferenceSession(str(tmp_path / "a.onnx")).run(None, given)
    assert function.outputs == ("gender", "season", "modality_weights")
    expected = made.attributes(IMAGES, keys(3), [SHORT, "blue watches for women brand 3", None])
    for name, found in zip(function.outputs[:2], served, strict=False):
        np.testing.assert_allclose(found, expected[name][1], atol=1e-3)  # its features came from the cache
    exact = probabilities(made, {**batch(encoder, SHORT, "blue watches for women brand 3"), "image": pixels[:2]})
    np.testing.assert_allclose(np.concatenate(served[:2], 1)[:2], exact.numpy(), atol=1e-5)
    np.testing.assert_array_equal(served[2][2], [[1, 0], [1, 0]])


def test_settings_that_cannot_be(encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="modality_dropout"):
        CmaClip.Config(modality_dropout=0.7)
    with pytest.raises(ValueError, match="heads: 3 does not divide"):
        task(encoder, heads=3)
    with pytest.raises(UserError, match="patch_levels: 7"):
        task(encoder, patch_levels=(7,))
    monkeypatch.setattr("training.labels.LEAST", 1000)
    with pytest.raises(UserError, match="no attribute has a value"):
        CmaClip.build(CmaClip.Config(), encoder)
