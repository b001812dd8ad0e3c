"""SyncMask-style training against numbers worked out by hand and its input contract (specification, section 11)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training import sync_tiny
from tests.training.sync_tiny import clone, hide, some, task
from training.fused.grouping import chain, negatives
from training.fused.momentum import NOBODY
from training.fused.multimodal import (
    in_buckets,
    mim_loss,
    normalised_features,
    normalised_pixels,
    read_texts,
)  # fmt: skip
from training.fused.pretrained import fit_heads
from training.fused.product_itc import grit_itc, momentum_itc, product_targets
from training.methods.syncmask import MIX, PATCHES, WORDS, SyncMask
from training.task import Outputs

S3 = torch.tensor([[0.80, 0.95, 0.82], [0.90, 0.78, 0.40], [0.50, 0.45, 0.85]])
EYE = torch.eye(3)
TAU = torch.tensor(10.0)  # 1 / 0.1


def masks_of(made: SyncMask, batch: Any, step: int = 0) -> Any:
    below = made.encoder.image.trunk.embed(batch["image"]) if made._shared_blocks() else None
    return made._masks(made._teach(batch, below, made._shared_blocks()).maps, batch, step)


# --- 1: the teacher stands apart --------------------------------------------------------------------------------------


def test_nothing_reaches_the_teacher() -> None:
    made = task(aligned=True)
    made.before_step(0, 0.0)
    outputs = made.encode(some(made), 0)
    made.losses(outputs, 0)["loss"].backward()
    assert not list(made.teacher.parameters())
    assert all(buffer.grad is None and not buffer.requires_grad for buffer in made.teacher.buffers())
    assert not outputs["image_teacher"].requires_grad
    assert not outputs["text_teacher"].requires_grad
    assert all(p.grad is not None for name, p in made.named_parameters() if p.requires_grad), "a parameter no loss uses"


def test_masks_hang_on_the_teacher_alone() -> None:
    made = task(aligned=True)
    batch = some(made)
    before = masks_of(made, batch)
    assert not before.patches.requires_grad
    assert not before.words.requires_grad
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = masks_of(made, batch)
    assert torch.equal(before.patches, after.patches)
    assert torch.equal(before.words, after.words)
    made.teacher.update(0.0)  # the teacher becomes the student
    moved = masks_of(made, batch)
    assert not torch.equal(moved.patches, before.patches)


def test_the_teacher_sees_no_mask_and_no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task()
    assert not made.teacher.training
    assert not made.teacher.parts["fusion"].training
    seen: list[Tensor] = []
    look_up = made.teacher.parts["text"].trunk.look_up
    monkeypatch.setattr(made.teacher.parts["text"].trunk, "look_up", lambda ids: seen.append(ids) or look_up(ids))
    patches: list[Any] = []
    tokens = made.teacher.parts["image"].trunk.tokens
    monkeypatch.setattr(
        made.teacher.parts["image"].trunk,
        "tokens",
        lambda pixels, mask=None: patches.append(mask) or tokens(pixels, mask),
    )
    batch = some(made)
    made.encode(batch, 0)
    assert seen
    assert all((ids != made.words.mask_id).all() for ids in seen)
    assert patches == [None]  # one pass, unmasked


def test_ema_by_hand() -> None:
    made = task()
    name, student = next(iter(made.fusion.named_parameters()))
    with torch.no_grad():
        student.fill_(1)
        made.teacher.state()[f"fusion.{name}"].zero_()
    for expected in (0.005, 0.009975, 0.014925):
        made.before_step(0, 1.0)
        assert made.teacher.state()[f"fusion.{name}"].mean().item() == pytest.approx(expected, abs=1e-6)


def test_ramps() -> None:
    made = task()
    found = []
    for progress in (0.0, 0.5, 1.0, 7.0):
        made.before_step(0, progress)
        found.append((round(made.alpha, 6), round(made.p_rand, 6)))
    assert found == [(0.0, 1.0), (0.2, 0.55), (0.4, 0.1), (0.4, 0.1)]
    made = task(aligned=True)
    made.before_step(0, 0.0)
    assert made.p_rand == 0.1


# --- 3: masks in the running method -----------------------------------------------------------------------------------


def test_padding_changes_no_mask() -> None:
    made = task(aligned=True)
    batch = some(made)
    longer = clone(batch, caption=dataclasses.replace(
        batch["caption"], ids=F.pad(batch["caption"].ids, (0, 5)), mask=F.pad(batch["caption"].mask, (0, 5))
    ))  # fmt: skip
    one, two = masks_of(made, batch), masks_of(made, longer)
    assert torch.equal(one.patches, two.patches)
    assert torch.equal(one.words, two.words[:, : one.words.shape[1]])
    assert not two.words[:, one.words.shape[1] :].any()


def test_counts_are_exact_and_pieces_go_together() -> None:
    made = task(aligned=True)
    batch = some(made)
    for step in range(20):
        found = masks_of(made, batch, step)
        assert found.patches.sum(1).tolist() == [4] * 4  # ⌊0.3 · 16⌋
        ids, words = batch["caption"].ids, found.words
        assert not (words & (ids < 5)).any()
        pieces = (words & (ids < 55)).sum(1)  # word starts: 4, 3, 5, 6 words
        assert pieces.tolist() == [1, 1, 2, 2]
        assert words[1, 2] == words[1, 3]  # w6 ##p1
        assert words[2, 5] == words[2, 6] == words[2, 7]


# --- 5: after training, words are masked that the picture shows -------------------------------------------------------


# --- 6: what each pass sees -------------------------------------------------------------------------------------------


def chosen_masks(monkeypatch: pytest.MonkeyPatch, made: SyncMask) -> tuple[Tensor, Tensor]:
    """Fix M_v to patches 1 and 2 and M_w to the second token, whatever the batch shows."""
    m_v = torch.zeros(4, 16, dtype=torch.bool)
    m_v[:, 1:3] = True
    m_w = torch.zeros(4, 10, dtype=torch.bool)
    m_w[:, 2] = True
    kept = made._masks

    def fixed(maps: Any, batch: Any, step: int) -> Any:
        return kept(maps, batch, step)._replace(patches=m_v, words=m_w[:, : batch["caption"].ids.shape[1]])

    monkeypatch.setattr(made, "_masks", fixed)
    return m_v, m_w


def changed_pixels(batch: Any, patches: list[int]) -> Any:
    """Other pixels in these patches of the 4 x 4 grid."""
    pixels = batch["image"].clone()
    for patch in patches:
        top, left = 8 * (patch // 4), 8 * (patch % 4)
        pixels[:, :, top : top + 8, left : left + 8] = 255 - pixels[:, :, top : top + 8, left : left + 8]
    return clone(batch, image=pixels)


def predictions(monkeypatch: pytest.MonkeyPatch, made: SyncMask, batch: Any) -> tuple[Tensor, Tensor]:
    """Logits of MLM and predictions of MIM."""
    found: dict[str, Tensor] = {}
    with monkeypatch.context() as patch:
        for name in ("mlm", "mim"):
            forward = getattr(made, name).forward

            def note(*args: Any, forward: Any = forward, name: str = name) -> Tensor:
                found[name] = forward(*args)
                return found[name]

            patch.setattr(getattr(made, name), "forward", note)
        with torch.no_grad():
            made.encode(batch, 0)
    return found["mlm"], found["mim"]


def test_mlm_sees_the_whole_image_and_mim_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(mim="pixel")
    chosen_masks(monkeypatch, made)
    batch = some(made)
    mlm, mim = predictions(monkeypatch, made, batch)
    other_mlm, other_mim = predictions(monkeypatch, made, changed_pixels(batch, [1, 2]))
    assert (mlm - other_mlm).abs().max() > 1e-6  # the image is not masked for MLM
    torch.testing.assert_close(mim, other_mim)  # what is hidden stays hidden from MIM
    assert (mim - predictions(monkeypatch, made, changed_pixels(batch, [7]))[1]).abs().max() > 1e-6
    _, reworded = predictions(monkeypatch, made, hide(batch, 2, 40))  # a word of M_w
    assert (mim - reworded).abs().max() > 1e-6  # the text is not masked for MIM


def test_mim_loss_by_hand() -> None:
    student = torch.tensor([[1.0, 0], [0, 2], [3, 3], [1, -1]])
    teacher = torch.tensor([[0.0, 0], [1, 1], [0, 0], [1, 1]])
    masked = torch.tensor([False, True, False, True])
    assert mim_loss("feature", student[masked], teacher[masked]).mean().item() == pytest.approx(0.625)
    assert mim_loss("feature", student, teacher).mean().item() == pytest.approx(1.0)  # all positions: wrong
    assert mim_loss("pixel", student[masked], teacher[masked]).mean().item() == pytest.approx(1.5)


def test_mim_counts_masked_patches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task()
    m_v, _ = chosen_masks(monkeypatch, made)
    batch = some(made)
    with torch.no_grad():
        norm = made.teacher.parts["image"].trunk.norm
        norm.weight.uniform_(0.5, 2)  # what training makes of it: features are not normalised by themselves
        norm.bias.normal_()
        taught = made._teach(batch, None, 0)
        _, predicted = predictions(monkeypatch, made, batch)
        wanted = normalised_features(taught.patches[:, 1:])[m_v]
        per_row = made.encode(batch, 0)["mim"]
    assert predicted.shape == (8, sync_tiny.WIDTH)
    expected = F.smooth_l1_loss(predicted, wanted, reduction="none").view(4, -1).mean(1)
    torch.testing.assert_close(per_row, expected)


def test_targets_of_mim() -> None:
    found = normalised_features(torch.tensor([[[1.0, 3.0], [5.0, 5.5]]]))
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]), atol=1e-3, rtol=0)
    pixels = sync_tiny.pictures(2)
    cut = normalised_pixels(pixels, 8)
    assert cut.shape == (2, 16, 192)
    torch.testing.assert_close(cut.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    raw = pixels[0, :, 8:16, 16:24].float().flatten()  # row 1, column 2: patch 6
    torch.testing.assert_close(cut[0, 6], (raw - raw.mean()) / raw.std(), atol=1e-4, rtol=1e-4)
    assert mim_loss("dvae", torch.eye(3)[:2] * 50, torch.tensor([0, 2])).tolist() == [0.0, 50.0]


def test_masked_language_loss_counts_masked_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task()
    chosen_masks(monkeypatch, made)
    batch = some(made)
    logits, _ = predictions(monkeypatch, made, batch)
    with torch.no_grad():
        outputs = made.encode(batch, 0)
    wanted = F.cross_entropy(logits, batch["caption"].ids[:, 2], reduction="none")
    torch.testing.assert_close(outputs["mlm"], wanted)
    assert outputs["mlm_count"].tolist() == [1.0] * 4


def test_distillation_mixes_in_the_teachers_words() -> None:
    plain, mixed = task(seed=1), task(seed=1, distill=0.4)
    with torch.no_grad():
        a, b = (made.encode(some(made), 0)["mlm"] for made in (plain, mixed))
    assert (a - b).abs().max() > 1e-4
    assert torch.isfinite(b).all()


# --- length groups leave results as they are --------------------------------------------------------------------------


def test_texts_in_length_groups_give_the_same_features() -> None:
    made = task()
    tokens = some(made)["caption"]
    trunk = made.encoder.text.trunk
    whole = trunk.contextual(trunk.look_up(tokens.ids), tokens.mask)
    found = read_texts(trunk, trunk.look_up(tokens.ids), tokens.mask)
    torch.testing.assert_close(found[tokens.mask.bool()], whole[tokens.mask.bool()], atol=1e-6, rtol=1e-5)
    widths: list[int] = []
    in_buckets(tokens.mask, lambda rows, width: widths.append(width) or tokens.ids[rows, :width].float())
    assert sorted(widths) == [6, 9]  # lengths 6, 6, 9, 8
    assert torch.equal(in_buckets(tokens.mask, lambda rows, width: tokens.ids[rows, :width]), tokens.ids)


# --- 9: contrastive losses by hand ------------------------------------------------------------------------------------


def itc(products: list[int], alpha: float = 0.0) -> float:
    y = product_targets(torch.tensor(products), torch.tensor(products))
    return momentum_itc(S3, EYE, (S3, EYE), (S3, EYE), y, TAU, alpha).item()


def test_itc_by_hand() -> None:
    """Features whose products are S: f = S, t = I."""
    assert itc([0, 1, 2]) == pytest.approx(1.196523, abs=1e-5)
    assert itc([0, 0, 1]) == pytest.approx(0.746522, abs=1e-5)
    y = product_targets(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    one_way = [-(y * logits.log_softmax(1)).sum(1).mean().item() for logits in (TAU * S3, TAU * S3.T)]
    assert one_way == pytest.approx([0.689463, 0.803582], abs=1e-5)


def test_grit_itc_by_hand() -> None:
    loss, agree = grit_itc(S3, EYE, TAU, 0.2)
    assert agree.item() == pytest.approx(0.882488, abs=1e-5)
    assert loss.item() == pytest.approx(1.373020, abs=1e-5)


def test_consistency_targets_carry_no_gradient() -> None:
    image = S3.clone().requires_grad_()
    _, agree = grit_itc(image, EYE, TAU, 0.2)
    agree.backward()
    logits = S3.clone().requires_grad_()
    fixed = TAU * S3
    (-(fixed.T.softmax(1) * (TAU * logits).log_softmax(1)).sum(1).mean() / 2
     - (fixed.softmax(1) * (TAU * logits.T).log_softmax(1)).sum(1).mean() / 2).backward()  # fmt: skip
    assert image.grad is not None
    assert logits.grad is not None
    torch.testing.assert_close(image.grad, logits.grad)


def test_queued_views_of_a_product_are_right_and_noise_is_not() -> None:
    own = torch.tensor([0, 0, 1])
    assert (product_targets(own, own) > 0).sum(1).tolist() == [2, 2, 1]
    assert (product_targets(own, torch.cat([own, torch.tensor([1, 5])])) > 0).sum(1).tolist() == [2, 2, 2]
    assert (product_targets(own, torch.cat([own, torch.tensor([NOBODY] * 4)])) > 0).sum(1).tolist() == [2, 2, 1]


def test_teacher_softens_the_targets() -> None:
    assert itc([0, 1, 2], alpha=0.4) != pytest.approx(itc([0, 1, 2]))


def test_ids_enter_the_queue_with_their_features() -> None:
    made = task()
    made.before_step(0, 0.0)
    batch = clone(some(made), product=torch.tensor([7, 8, 7, 9]))
    outputs = made.encode(batch, 0)
    made.losses(outputs, 0)
    assert made.queue is not None
    assert made.queue.ids[:5].tolist() == [7, 8, 7, 9, NOBODY]
    assert torch.equal(made.queue.image[:4], outputs["image_teacher"])
    assert torch.equal(made.queue.text[:4], outputs["text_teacher"])


# --- 10: the ablation switch ------------------------------------------------------------------------------------------


def plain_masks(made: SyncMask, batch: Any, step: int) -> tuple[Tensor, Tensor]:
    """⌊0.3 N⌋ patches and 30 % of the words, uniformly: the largest of the same random numbers."""
    numbers = made.draw(batch, step, PATCHES, 16)
    patches = torch.zeros(4, 16, dtype=torch.bool).scatter(1, numbers.topk(4, 1).indices, True)
    numbers = made.draw(batch, step, WORDS, 16)
    ids = batch["caption"].ids
    words = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(4):
        starts = [i for i, token in enumerate(ids[row].tolist()) if 5 <= token < 55]
        best = numbers[row, : len(starts)].topk(max(1, round(0.3 * len(starts)))).indices.tolist()
        for word in best:
            stop = starts[word] + 1
            while ids[row, stop] >= 55:
                stop += 1
            words[row, starts[word] : stop] = True
    return patches, words


def plain_grit(made: SyncMask, outputs: Outputs) -> dict[str, Tensor]:
    """ITC of GRIT and ITM with the nearest other row of the batch as the negative."""
    image, text = outputs["image"], outputs["text"]
    s = (image @ text.T).detach()
    hardest = s.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    text_of, image_of = hardest.argmax(1), hardest.T.argmax(1)
    itc = grit_itc(image, text, made.scale(), 0.2)[0]
    rows = torch.arange(4)
    pairs = torch.cat([rows, rows, text_of]), torch.cat([rows, image_of, rows])
    words, mask = outputs["words"][pairs[0]], outputs["mask"][pairs[0]]
    bias = (1.0 - mask[:, None, None].float()) * -1e9
    fused, _ = made.fusion(words, bias, made.fusion.project(outputs["patches"][pairs[1]]))
    labels = torch.tensor([1] * 4 + [0] * 8)
    return {"itc": itc, "itm": F.cross_entropy(made.itm(fused[:, 0]), labels)}


def test_random_scores_and_top1_are_plain_grit() -> None:
    made = task(score="random", hard="top1", itc="grit")
    made.before_step(0, 0.0)
    batch = some(made)
    for step in range(5):
        found = masks_of(made, batch, step)
        patches, words = plain_masks(made, batch, step)
        assert torch.equal(found.patches, patches)
        assert torch.equal(found.words, words)
        outputs = made.encode(batch, step)
        parts, plain = made.losses(outputs, step), plain_grit(made, outputs)
        torch.testing.assert_close(parts["itc"], plain["itc"], atol=0, rtol=0)
        torch.testing.assert_close(parts["itm"], plain["itm"], atol=1e-6, rtol=1e-6)  # sums in another order


def test_top1_chain_is_grits_own() -> None:
    """Against GRIT's procedure written out: zero rows and columns of what was visited, then the largest entry."""
    draw = np.random.default_rng(0)
    image, text = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in draw.normal(size=(2, 40, 6)))
    s = (image @ text.T).astype(np.float32)
    i2t, t2i = torch.tensor(s).div(0.1).softmax(1).numpy(), torch.tensor(s.T.copy()).div(0.1).softmax(1).numpy()
    for matrix in (i2t, t2i):
        np.fill_diagonal(matrix, 0)
    order, current = [11], 11
    for place in range(1, 40):
        i2t[:, current] = t2i[:, current] = 0
        current = int((i2t if place % 2 else t2i)[current].argmax())
        order.append(current)
    found, _ = chain(s, np.arange(40), np.arange(40), 4, task(hard="top1").rule, 11, draw)
    assert found.tolist() == order


def test_no_random_share_is_drawn_from_other_numbers() -> None:
    """Mixing in random masks must not shift the numbers that masks are drawn with."""
    made = task(aligned=True, random_share=1.0)
    plain = task(aligned=True, score="random")
    batch = some(made)
    assert (made.draw(batch, 0, MIX) < made.p_rand).all()
    assert torch.equal(masks_of(made, batch).patches, masks_of(plain, batch).patches)
    assert torch.equal(masks_of(made, batch).words, masks_of(plain, batch).words)


def test_one_kind_of_mask_alone_can_be_synchronised() -> None:
    batch = some(task())
    both, text, image, none = (
        masks_of(task(aligned=True, random_share=0.0, temperature=1e-6, **change), batch)
        for change in ({}, {"synchronised": "text"}, {"synchronised": "image"}, {"score": "random"})
    )
    assert torch.equal(text.words, both.words)
    assert torch.equal(text.patches, none.patches)
    assert torch.equal(image.patches, both.patches)
    assert torch.equal(image.words, none.words)


# --- matching -----------------------------------------------------------------------------------------------------


def test_rows_without_a_negative_do_not_count() -> None:
    made = task()
    made.before_step(0, 0.0)
    outputs = made.encode(clone(some(made), product=torch.zeros(4, dtype=torch.int64)), 0)
    parts = made.losses(outputs, 0)
    positives, _ = made.fusion(
        outputs["words"], (1.0 - outputs["mask"][:, None, None].float()) * -1e9, made.fusion.project(outputs["patches"])
    )
    expected = F.cross_entropy(made.itm(positives[:, 0]), torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(parts["itm"], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("change", [
    {"score": "cls"}, {"score": "overlap"}, {"score": "weighted"}, {"score": "feature"}, {"layers": ()},
    {"layers": (0, -1)}, {"mim": "pixel"}, {"itc": "grit"}, {"hard": "rank_window", "window": (1, 2)},
    {"hard": "exclude_id", "draw_negatives": True}, {"never_masked": ("w1", "w5")},
])  # fmt: skip
def test_every_mode_runs_and_learns(change: dict[str, Any]) -> None:
    made = task(aligned=True, **change)
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    batch = some(made)
    for step in range(6):
        made.before_step(step, 1.0)
        parts = made.training_step(batch, step)
        parts["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        made.after_step()
        losses.append(parts["loss"].item())
    assert min(losses[1:]) < losses[0]


def test_negatives_pair_rows_of_other_products() -> None:
    made = task()
    made.before_step(0, 0.0)
    outputs = made.encode(clone(some(made), product=torch.tensor([0, 0, 1, 1])), 0)
    for found in made._negatives(outputs, 0):
        assert all(int(found.index[i]) // 2 != i // 2 for i in range(4))
    assert negatives(torch.eye(4), torch.arange(4), torch.arange(4), made.rule).valid.all()


def test_fitted_heads_see_standardised_features_in_teacher_and_student() -> None:
    made = task()
    batch = some(made)
    fit_heads(made.encoder, batch)
    made.begin()
    head = made.encoder.image.head
    found = (made.encoder.image.trunk(batch["image"]) - head.shift) * head.scale
    torch.testing.assert_close(found.mean(0), torch.zeros(sync_tiny.WIDTH), atol=1e-4, rtol=0)
    assert torch.equal(made.teacher.parts["image"].head.shift, head.shift)
    assert torch.equal(made.teacher.parts["text"].head.scale, made.encoder.text.head.scale)
