"""NegCLIP: the number of its loss, where rows and columns stand, neighbours, and its text negatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from data.params import UserError
from tests.training.fixture_a import IMAGE, NEGATIVE, SCALE, TEXT
from training.config import TrainerConfig
from training.encoder import embed_images, load_encoder
from training.methods.negclip import NegClip
from training.neighbours_source import NeighboursSource, draw_neighbours, nearest
from training.sampling import draws
from training.source import load_products

CONFIG = TrainerConfig(batch=8, epochs=3, frozen=("image.trunk",), precision="fp32", threads=1, title_share=0.5)


def outputs(valid: list[list[bool]]) -> dict[str, Tensor]:
    """Fixture A as one row and its neighbour: X = I_0, X' = I_1, and so on."""
    return {"image": IMAGE[None], "text": TEXT[None], "negative": NEGATIVE[:, 0][None], "valid": torch.tensor(valid)}


@pytest.fixture
def task(workspace: Path) -> NegClip:
    return NegClip(NegClip.Config(), load_encoder(Path("store/models/base")))


@pytest.fixture
def source(task: NegClip) -> Iterator[NeighboursSource]:
    made = task.source(CONFIG, "test")
    assert isinstance(made, NeighboursSource)
    yield made
    made.close()


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_of_the_specification(task: NegClip) -> None:
    """i2t 1.194574, t2i 0.513015: one row with its neighbour is the two images and four texts of the fixture."""
    task.encoder.logit_scale = torch.nn.Parameter(SCALE.log())
    assert task.losses(outputs([[True, True]]), 0)["loss"].item() == pytest.approx(0.853795, abs=1e-6)


def test_a_missing_negative_has_no_column(task: NegClip) -> None:
    task.encoder.logit_scale = torch.nn.Parameter(SCALE.log())
    without = task.losses(outputs([[False, False]]), 0)["loss"].item()
    assert without == pytest.approx(0.513015, abs=1e-6)  # CLIP's
    one = task.losses(outputs([[True, False]]), 0)["loss"].item()
    scores = SCALE * IMAGE @ torch.cat([TEXT, NEGATIVE[:1, 0]]).T
    i2t = torch.nn.functional.cross_entropy(scores, torch.arange(2)).item()
    assert one == pytest.approx((i2t + 0.513015) / 2, abs=1e-6)


def test_every_row_brings_two_images_and_four_texts(task: NegClip, source: NeighboursSource) -> None:
    """The loss of a batch, against the formula over separately encoded images [X, X'] and texts [T, T', N, N']."""
    (batch,) = source.batches(0)
    task.eval()
    with torch.no_grad():
        loss = task.training_step(batch, 0)["loss"]
        encoder, tokens = task.encoder, batch["negatives"][0]
        image = torch.cat([encoder.project_image(batch["image"]), encoder.project_image(batch["hard_image"])])
        text = torch.cat([encoder.encode_text(t.ids, t.mask) for t in (batch["caption"], batch["hard_caption"])])
        swapped = encoder.encode_text(tokens.ids, tokens.mask)  # the order of the columns after 2B does not matter
        scale, target = encoder.logit_scale.exp(), torch.arange(16)
        i2t = torch.nn.functional.cross_entropy(scale * image @ torch.cat([text, swapped]).T, target)
        t2i = torch.nn.functional.cross_entropy(scale * text @ image.T, target)
    torch.testing.assert_close(loss, (i2t + t2i) / 2, atol=1e-5, rtol=0)
    assert 0 < len(tokens.ids) < 16  # some captions of the workspace have no swap


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_nearest_of_other_families() -> None:
    angles = torch.tensor([0.0, 0.1, 0.3, 0.62, 1.0])
    features = torch.stack([angles.cos(), angles.sin()], 1).numpy()
    groups, captions = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 2, 0, 4])
    found = nearest(features, [groups, captions], 2)
    assert found.tolist() == [[2, 4], [2, 3], [1, 0], [2, 4], [3, 2]]
    assert nearest(features, [np.array([0, 0, 0, 0, 1])], 3)[0].tolist() == [4, 4, 4]
    with pytest.raises(UserError, match="one family"):
        nearest(features, [np.zeros(5, dtype=np.int64)], 3)


def test_nearest_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    features = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    groups = np.arange(40) // 3
    whole = nearest(features, [groups], 3)
    monkeypatch.setattr("training.neighbours_source.BLOCK", 7)
    np.testing.assert_array_equal(nearest(features, [groups], 3), whole)
    similarity = features @ features.T
    similarity[groups[:, None] == groups] = -2
    np.testing.assert_array_equal(whole, np.argsort(-similarity, 1)[:, :3])


def test_a_neighbour_of_a_family_in_the_batch_gives_way() -> None:
    groups = np.array([0, 1, 2, 3, 4, 4])
    choices = np.array([[1, 2, 3], [3, 0, 2]])
    positions = np.array([0, 1])
    assert draw_neighbours(choices, np.array([0.0, 0.0]), groups, positions).tolist() == [2, 3]  # 1 is in the batch
    assert draw_neighbours(choices, np.array([0.9, 0.0]), groups, positions).tolist() == [3, 2]  # 3 came just now
    assert draw_neighbours(np.array([[1, 1], [4, 5]]), np.array([0.0, 0.6]), groups, positions).tolist() == [1, 5]


def test_neighbours_come_from_the_base_model_and_never_from_the_family(
    workspace: Path, task: NegClip, source: NeighboursSource
) -> None:
    products = load_products(Path("store/dataset"), "train")
    features = embed_images(task.encoder, Path("store/dataset/images.parquet"), products.image_keys, "test")
    similarity = features @ features.T
    for step in range(source.steps):
        epoch, positions = source.plan[step]
        (batch,) = source.batches(step)
        chance = draws(len(products.row_ids), 5, CONFIG.seed, epoch)[positions, 2]
        hard = draw_neighbours(source.nearest[positions], chance, products.groups, positions)
        for row, (own, other) in enumerate(zip(positions, hard, strict=True)):
            assert other in source.nearest[own]
            assert products.groups[own] != products.groups[other]
            assert products.captions[own][1] != products.captions[other][1]
            better = [p for p in np.argsort(-similarity[own]) if products.captions[p][1] != products.captions[own][1]]
            assert similarity[own, other] >= similarity[own, better[2]] - 1e-6
            torch.testing.assert_close(batch["hard_image"][row], source.pictures.take(np.array([other]), None)[0])


# --- text negatives ---------------------------------------------------------------------------------------------------


def texts_of(source: NeighboursSource, tokens: object) -> list[str]:
    ids, mask = tokens.ids, tokens.mask  # type: ignore[attr-defined]
    known = {tuple(source.texts.take(np.array([i])).ids[0].tolist()): t for i, t in enumerate(source.texts.distinct)}
    return [known[tuple(row[: int(n)].tolist())] for row, n in zip(ids, mask.sum(1), strict=True)]


def test_negatives_belong_to_the_captions_that_are_shown(task: NegClip, source: NeighboursSource) -> None:
    swaps = pd.read_parquet("store/negatives/swaps.parquet").groupby("caption").negative.agg(set).to_dict()
    for step in range(source.steps):
        (batch,) = source.batches(step)
        own, hard = texts_of(source, batch["caption"]), texts_of(source, batch["hard_caption"])
        tokens, valid = batch["negatives"]
        shown = [text for pair in zip(own, hard, strict=True) for text in pair]
        assert valid.flatten().tolist() == [text in swaps for text in shown]
        for text, negative in zip([t for t in shown if t in swaps], texts_of(source, tokens), strict=True):
            assert negative in swaps[text]


def test_catalog_negatives_can_take_their_place(workspace: Path) -> None:
    task = NegClip(NegClip.Config(text_negatives="catalog"), load_encoder(Path("store/models/base")))
    source = task.source(CONFIG, "test")
    table = pd.read_parquet("store/negatives/negatives.parquet")
    drawn: set[str] = set()
    for step in range(source.steps):
        (batch,) = source.batches(step)
        tokens, valid = batch["negatives"]
        shown = [t for pair in zip(*(texts_of(source, batch[k]) for k in ("caption", "hard_caption")), strict=True)
                 for t in pair]  # fmt: skip
        having = [text for text, has in zip(shown, valid.flatten().tolist(), strict=True) if has]
        for text, negative in zip(having, texts_of(source, tokens), strict=True):
            found = table[(table.caption == text) & (table.negative == negative)]
            assert len(found)
            drawn.update(found.edit_type)
    source.close()
    assert drawn == {"attribute", "object"}


def test_without_swaps_it_says_what_to_do(workspace: Path, task: NegClip) -> None:
    Path("store/negatives/swaps.parquet").unlink()
    with pytest.raises(UserError, match="dvc repro negatives"):
        task.source(CONFIG, "test")


# --- dividing the batch -----------------------------------------------------------------------------------------------


def test_micro_batches_hold_the_rows_of_the_whole(task: NegClip, source: NeighboursSource) -> None:
    pieces = task.source(dataclasses.replace(CONFIG, accumulate=2), "test")
    task.eval()
    with torch.no_grad():
        whole = task.encode(source.batches(1)[0], 1)
        parts = [task.encode(batch, 1) for batch in pieces.batches(1)]
    pieces.close()
    for key, value in whole.items():
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), value, atol=1e-5, rtol=0)


def test_frozen_text_features_give_the_same_outputs(task: NegClip, source: NeighboursSource) -> None:
    cached = task.source(dataclasses.replace(CONFIG, frozen=("image.trunk", "text.trunk")), "test")
    task.eval()
    with torch.no_grad():
        slow, fast = (task.encode(s.batches(0)[0], 0) for s in (source, cached))  # type: ignore[attr-defined]
    cached.close()
    assert cached.texts.features is not None
    for key, value in slow.items():
        torch.testing.assert_close(fast[key], value, atol=1e-5, rtol=0)
