"""One stack of layers as text encoder, reader of pictures, and reader of words: what each may and may not know."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.training import small_simla as small
from tests.training.small_simla import gradients, step
from training.fused.single_stream import read_patches, read_text, read_words
from training.methods import simla
from training.methods.simla import Simla
from training.task import Tokens


def look_up(task: Simla, caption: Tokens) -> Tensor:
    """The student's word embeddings (B, L, D)."""
    found: Tensor = task.encoder.text.trunk.look_up(caption.ids)
    return found


def test_text_role_knows_no_picture_and_fused_role_does() -> None:
    task = small.task()
    caption, first, second = small.batch()["caption"], small.batch(1)["image"], small.batch(2)["image"]
    trunk = task.encoder.image.trunk
    with torch.no_grad():
        one, two = (
            read_words(task.student, look_up(task, caption), caption.mask, task.fusion.project(trunk.tokens(pixels)))[0]
            for pixels in (first, second)
        )
    assert (one[:, 0] - two[:, 0]).abs().max() > 1e-3
    found = gradients(read_text(task.student, look_up(task, caption), caption.mask).sum(), task)
    assert all(size == 0 for name, size in found.items() if name.startswith(("fusion", "encoder.image")))
    assert found["encoder.text.trunk.layers.0.qkv.weight"] > 0
    assert found["encoder.text.trunk.layers.1.up.weight"] > 0


def test_both_roles_are_the_same_parameters() -> None:
    task = small.task()
    assert task.student["text"].trunk is task.encoder.text.trunk
    assert sum("text" in name and name.endswith("qkv.weight") for name, _ in task.named_parameters()) == 2
    caption = small.batch()["caption"]
    v = torch.randn(4, 17, 32)
    pointer = task.encoder.text.trunk.layers[1].up.weight.data_ptr()
    seen = []
    for layer in task.encoder.text.trunk.layers[1:]:
        layer.up.register_forward_hook(lambda module, *_: seen.append(module.weight.data_ptr()))
    with torch.no_grad():
        read_text(task.student, look_up(task, caption), caption.mask)
        read_words(task.student, look_up(task, caption), caption.mask, task.fusion.project(v))
        read_patches(task.student, v, look_up(task, caption), caption.mask)
    assert set(seen) == {pointer}
    assert len(seen) == 2 + 2 + 1  # length buckets of both passes over words, and the patches


def test_fused_pass_starts_again_from_word_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the text role gives cannot change what the fused roles give."""
    task = small.task(levels=("mlm", "mim"))
    task.before_step(0, 1.0)
    before = step(task)
    monkeypatch.setattr(simla, "read_text", lambda parts, words, mask: torch.ones(4, 32))
    after = step(task)
    assert not torch.equal(before["itc"], after["itc"])
    assert torch.equal(before["mlm"], after["mlm"])
    assert torch.equal(before["mim"], after["mim"])


def test_buckets_and_padding_change_nothing() -> None:
    task = small.task()
    caption, v = small.batch()["caption"], torch.randn(4, 17, 32)
    padded = Tokens(torch.nn.functional.pad(caption.ids, (0, 2)), torch.nn.functional.pad(caption.mask, (0, 2)))
    with torch.no_grad():
        projected = task.fusion.project(v)
        tokens, attention = read_words(task.student, look_up(task, caption), caption.mask, projected)
        wide, wide_attention = read_words(task.student, look_up(task, padded), padded.mask, projected)
        for row, length in enumerate(caption.mask.sum(1).tolist()):
            alone = look_up(task, caption)[row : row + 1, :length]
            own = [pair[row : row + 1] for pair in projected]
            expected, probabilities = read_words(
                task.student, alone, torch.ones_like(alone[..., 0], dtype=torch.int64), own
            )
            torch.testing.assert_close(tokens[row, :length], expected[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(attention[row, :, :length], probabilities[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(wide[:, :10], tokens)
        torch.testing.assert_close(wide_attention[:, :, :10], attention)
        torch.testing.assert_close(
            read_patches(task.student, v, look_up(task, padded), padded.mask),
            read_patches(task.student, v, look_up(task, caption), caption.mask),
            atol=1e-5,
            rtol=1e-5,
        )
        torch.testing.assert_close(
            read_text(task.student, look_up(task, padded), padded.mask),
            read_text(task.student, look_up(task, caption), caption.mask),
        )


def test_what_is_not_wanted_is_left_out_and_nothing_else_changes() -> None:
    """The last layer computes the wanted places only: outputs and gradients are those of all places, chosen later."""
    task = small.task()
    caption, v = small.batch()["caption"], torch.randn(4, 17, 32)
    words = caption.mask.bool() & (torch.arange(caption.ids.shape[1]) % 3 == 1)
    words[2] = False  # a row that wants only [CLS]
    patches = torch.rand(4, 17, generator=torch.Generator().manual_seed(0)) < 0.4
    cls = torch.zeros_like(words)
    cls[:, 0] = True

    def read(words: Tensor | None, patches: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        projected = task.fusion.project(v)
        tokens, attention = read_words(task.student, look_up(task, caption), caption.mask, projected, wanted=words)
        return tokens, attention, read_patches(task.student, v, look_up(task, caption), caption.mask, patches)

    some, attention, some_patches = read(words, patches)
    every, expected, every_patches = read(None, None)
    kept, kept_patches = (words | cls)[:, :, None], (patches | (torch.arange(17) == 0))[:, :, None]
    assert not (some * ~caption.mask.bool()[:, :, None]).any()
    torch.testing.assert_close(some * kept, every * kept, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(some_patches * kept_patches, every_patches * kept_patches, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, expected)
    kept, kept_patches = kept * torch.randn(32), kept_patches * torch.randn(32)
    ours = gradients((some * kept).sum() + (some_patches * kept_patches).sum(), task)
    theirs = gradients((every * kept).sum() + (every_patches * kept_patches).sum(), task)
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


# 3. Symmetric XMM


def mim_logits(task: Simla, batch: dict[str, object], hidden: Tensor) -> Tensor:
    (_, v_masked), _ = task._pictures(batch["image"], hidden)  # type: ignore[arg-type]
    caption: Tokens = batch["caption"]
    return task.guess_patches(task.student, v_masked, look_up(task, caption), caption.mask, hidden)  # type: ignore[arg-type]


def test_each_modality_is_told_from_the_other() -> None:
    task, batch = small.task(), small.batch()
    caption = batch["caption"]
    hidden = torch.zeros(4, 16, dtype=torch.bool)
    hidden[:, [1, 6]] = True
    other = batch["image"].clone()
    other[:, :, 0:8, 8:16] = 0  # patch 1
    other[:, :, 8:16, 16:24] = 255  # patch 6
    shown = batch["image"].clone()
    shown[:, :, 24:32, 0:8] ^= 255  # patch 12
    words = caption.ids.clone()
    words[:, 1] = (words[:, 1] - 4) % 35 + 5
    with torch.no_grad():
        logits = mim_logits(task, batch, hidden)
        assert torch.equal(mim_logits(task, batch | {"image": other}, hidden), logits)
        assert (mim_logits(task, batch | {"image": shown}, hidden) - logits).abs().max() > 1e-4
        told = mim_logits(task, batch | {"caption": Tokens(words, caption.mask)}, hidden)
        assert (told - logits).abs().max() > 1e-4
        tokens = [
            read_words(
                task.student,
                look_up(task, caption),
                caption.mask,
                task.fusion.project(task.encoder.image.trunk.tokens(x)),
            )
            for x in (batch["image"], shown)
        ]
        guesses = [task.mlm(found[:, 1], task.encoder.text.trunk.words.weight) for found, _ in tokens]
        assert (guesses[0] - guesses[1]).abs().max() > 1e-4


def test_words_are_read_without_context_by_patches() -> None:
    """Keys and values of the image-query pass are the embedding layer's output: they come before the first layer."""
    task, v = small.task(), torch.randn(4, 17, 32)
    caption = small.batch()["caption"]
    seen = []
    task.fusion.crosses[1].key_value.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        read_patches(task.student, v, look_up(task, caption), caption.mask)
        trunk = task.encoder.text.trunk
        torch.testing.assert_close(seen[0], trunk.embed(trunk.look_up(caption.ids)))


def test_gradients_of_single_levels() -> None:
    """L_mim reaches the caption's words and the cross-attention; L_psl nothing of the BERT half."""
    task = small.task()
    task.before_step(0, 1.0)
    found = gradients(step(task)["mim"], task)
    assert found["encoder.text.trunk.words.weight"] > 0
    assert all(found[f"fusion.crosses.{i}.key_value.weight"] > 0 for i in (0, 1))
    assert found["encoder.image.trunk.mask_token"] > 0
    assert found["encoder.text.head.linear.weight"] == 0
    found = gradients(step(task)["psl"], task)
    reached = {name for name, size in found.items() if size > 0}
    assert not any(name.startswith(("encoder.text", "fusion", "mlm", "mim", "itm")) for name in reached)
    assert {"concept.weight", "encoder.image.head.linear.weight", "encoder.image.trunk.blocks.0.attn.qkv.weight"} <= (
        reached
    )


def test_position_embeddings_are_added_out_of_place() -> None:
    task, caption = small.task(), small.batch()["caption"]
    v = torch.randn(4, 17, 32)
    before = v.clone()
    with torch.no_grad():
        read_patches(task.student, v, look_up(task, caption), caption.mask)
    assert torch.equal(v, before)
