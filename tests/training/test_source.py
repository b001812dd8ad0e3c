"""Batches: who is in them, what is drawn of each product, and that any step can be made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.params import UserError
from tests.training import tiny
from training import sampling
from training.config import TrainerConfig
from training.encoder import load_encoder
from training.methods.ce_clip import CeClip
from training.source import Source, crop_box, load_products
from training.task import BASE, DATASET
from training.texts import Candidates, caption_kinds


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    batch=st.integers(2, 9),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_an_epoch(groups: list[int], batch: int, seed: int, epoch: int) -> None:
    batches = sampling.epoch_batches(groups, batch, seed, epoch)
    taken = [p for b in batches for p in b.tolist()]
    assert len(taken) == len(set(taken)), "a product twice in one epoch"
    for members in batches:
        assert len(members) == batch
        assert len({groups[p] for p in members}) == batch, "two of one group in one batch"
    left = set(range(len(groups))) - set(taken)
    assert len({groups[p] for p in left}) < batch, "another full batch was possible"
    again = sampling.epoch_batches(groups, batch, seed, epoch)
    assert [b.tolist() for b in again] == [b.tolist() for b in batches]


def test_epochs_and_seeds_differ() -> None:
    groups = list(range(64))
    orders = [np.concatenate(sampling.epoch_batches(groups, 8, s, e)).tolist() for s, e in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert not np.array_equal(sampling.draws(9, 4, 0, 0), sampling.draws(9, 4, 0, 1))
    assert not np.array_equal(sampling.draws(9, 4, 0, 0), sampling.crops(9, 0, 0))


def test_a_missing_caption_gives_way_to_the_other() -> None:
    own = np.array([[4, 5], [-1, 7], [8, -1], [4, 5]])
    assert caption_kinds(own, np.array([0.1, 0.1, 0.9, 0.9]), 0.5).tolist() == [0, 1, 0, 1]
    assert caption_kinds(own[[0, 0]], np.array([0.0, 0.999]), 1.0).tolist() == [0, 0]
    assert caption_kinds(own[[0, 0]], np.array([0.0, 0.999]), 0.0).tolist() == [1, 1]


def test_one_candidate_per_type_is_drawn_from_the_captions_own() -> None:
    table = pd.DataFrame(
        [("b", "title", "attribute", "t1"), ("a", "title", "attribute", "t2"), ("a", "title", "attribute", "t3"),
         ("a", "derived", "object", "d1"), ("c", "title", "action", "elsewhere")],
        columns=["row_id", "caption_kind", "edit_type", "negative"],
    )  # fmt: skip
    candidates = Candidates(table, ["a", "b"])
    positions, kinds = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])
    chance = np.array([[0.0] * 4, [0.99] * 4, [0.5] * 4, [0.99] * 4, [0.5] * 4])
    places, valid = candidates.draw(positions, kinds, chance)
    chosen = [
        [candidates.texts[p] if v else None for p, v in zip(*row, strict=True)]
        for row in zip(places, valid, strict=True)
    ]
    none = None
    assert chosen == [
        [none, "t2", none, none], [none, "t3", none, none], [none, none, "d1", none], [none, "t1", none, none],
        [none] * 4,
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), least=st.floats(0.1, 1.0),
    chance=st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
)  # fmt: skip
def test_crops_lie_inside_and_keep_their_share(width: int, height: int, least: float, chance: list[float]) -> None:
    left, top, right, bottom = crop_box((width, height), least, chance)
    assert 0 <= left < right <= width or width * height < 4
    assert 0 <= top < bottom <= height or width * height < 4
    if min(width, height) > 50 and max(width, height) / min(width, height) < 1.2:
        assert (right - left) * (bottom - top) >= 0.8 * least * width * height


def source(workspace: Path, **changes: object) -> Source:
    config = TrainerConfig(**{**tiny.PARAMS["starter"]["trainer"], **changes})  # type: ignore[index,arg-type,dict-item]
    made = CeClip.build(CeClip.Config(), load_encoder(BASE)).source(config, "test")
    assert isinstance(made, Source)
    return made


def texts_of(batch: object, key: str, made: Source, encoder_ids: dict[tuple[int, ...], str]) -> list[str]:
    tokens = batch[key] if key == "caption" else batch[key][0]  # type: ignore[index]
    return [
        encoder_ids[tuple(row[: int(n)])]
        for row, n in zip(tokens.ids.tolist(), tokens.mask.sum(1).tolist(), strict=True)
    ]


def test_negatives_in_a_batch_belong_to_their_captions(workspace: Path) -> None:
    made = source(workspace)
    table = pd.read_parquet("store/negatives/negatives.parquet")
    known = {(r, c): set(t.negative) for (r, c), t in table.groupby(["row_id", "caption"])}
    types = {(t.caption, t.negative): sampling.TYPES.index(t.edit_type) for t in table.itertuples()}
    rows = {tuple(made.texts.flat[s : s + n]): t for s, n, t in
            zip(made.texts.starts, made.texts.lengths, made.texts.distinct, strict=True)}  # fmt: skip
    seen = 0
    for step in range(made.steps):
        batch = made.batches(step)[0]
        captions = texts_of(batch, "caption", made, rows)
        negatives = iter(texts_of(batch, "negatives", made, rows))
        for row_id, caption, valid in zip(made.row_ids(step), captions, batch["negatives"][1].tolist(), strict=True):
            own = [(k, next(negatives)) for k in range(4) if valid[k]]
            assert bool(own) == ((row_id, caption) in known)
            for k, negative in own:
                assert negative in known[row_id, caption]
                assert types[caption, negative] == k
                seen += 1
    assert seen > 50


def test_any_step_can_be_made_again(workspace: Path) -> None:
    first, second = source(workspace), source(workspace)
    whole = [first.batches(step)[0] for step in range(first.steps)]
    for step in (7, 2, 11):
        batch = second.batches(step)[0]
        assert (batch["image"] == whole[step]["image"]).all()
        assert (batch["caption"].ids == whole[step]["caption"].ids).all()
        assert (batch["negatives"][1] == whole[step]["negatives"][1]).all()
    assert [first.starts_epoch(s) for s in range(first.steps)] == [0, *[None] * 3, 1, *[None] * 3, 2, *[None] * 3]


def test_a_product_without_a_title_is_kept(workspace: Path) -> None:
    products = load_products(DATASET, "train")
    assert products.captions[1] == (None, "green shirts for women")
    assert len(products.row_ids) == 32


def test_an_empty_split_is_an_error(workspace: Path) -> None:
    with pytest.raises(UserError, match="the holdout split is empty"):
        load_products(DATASET, "holdout")
