"""Epochs of near neighbours: what an epoch collected decides the next one, once, whole, and again after a stop."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training import sync_tiny
from training.config import TrainerConfig
from training.fused.grouped_source import GroupedSource, Grouping
from training.fused.grouping import Rule
from training.sampling import epoch_batches
from training.source import Products

COUNT, BATCH = 45, 4


class Blank:
    """Pictures without content."""

    def take(self, positions: Any, chance: Any) -> Tensor:
        return torch.zeros(len(positions), 3, 32, 32, dtype=torch.uint8)


def products() -> Products:
    """45 products of 36 families; every fifth has the same derived caption."""
    groups = np.arange(COUNT) % 36
    captions: list[tuple[str | None, str | None]] = [(f"w{i}  W{i % 7}", f"w{i % 5}") for i in range(COUNT)]
    return Products([f"r{i}" for i in range(COUNT)], groups, [f"p{i}" for i in range(COUNT)], captions)


def source(grouping: Grouping | None, epochs: int = 3, **settings: Any) -> GroupedSource:
    config = TrainerConfig(epochs=epochs, batch=BATCH, crop=1.0, seed=5, **settings)
    needs = frozenset({"image", "caption", "product", "text"})
    made = GroupedSource(products(), sync_tiny.encoder(), Blank(), config, needs)  # type: ignore[arg-type]
    made.group(grouping)
    return made


def grouping(hard: Any = "semi", queue: int = 1000, space: int = 16) -> Grouping:
    return Grouping(Rule(hard=hard), queue, space)


def outputs(step: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    made = torch.randn(2, BATCH, 8, generator=draw)
    image, text = torch.nn.functional.normalize(made, dim=-1)
    return {"image": image, "text": text}


def run(made: GroupedSource, start: int = 0, stop: int | None = None) -> list[Any]:
    """The batches (image positions, captions) of the steps."""
    found = []
    for step in range(start, made.steps if stop is None else stop):
        batch = made.batches(step)[0]
        found.append((made.row_ids(step), batch["caption"].ids, batch["text"], batch["product"]))
        made.observe(step, outputs(step))
    return found


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x[0] == y[0] and all(torch.equal(p, q) for p, q in zip(x[1:], y[1:], strict=True))
        for x, y in zip(a, b, strict=True)
    )


def test_epoch_0_is_ordinary_random_sampling() -> None:
    made = source(grouping())
    first = epoch_batches(products().groups, BATCH, 5, 0)
    assert made.per_epoch == len(first)
    assert made.steps == 3 * len(first)
    assert [made.row_ids(step) for step in range(made.per_epoch)] == [[f"r{i}" for i in b] for b in first]
    made.close()


@pytest.mark.parametrize("queue", [16, 20, 1000])
def test_the_next_epoch_shows_what_this_one_showed_and_what_it_left_out(queue: int) -> None:
    made = source(grouping(queue=queue), epochs=4)
    run(made)
    epochs = [
        [tuple(made.row_ids(step)) for step in range(e * made.per_epoch, (e + 1) * made.per_epoch)] for e in range(4)
    ]
    seen = [set(sum(epoch, ())) for epoch in epochs]
    assert all(len(found) == made.per_epoch * BATCH for found in seen)  # no product twice
    everyone = {f"r{i}" for i in range(COUNT)}
    for before, after in itertools.pairwise(seen):
        assert everyone - before <= after, "left out twice"
    assert set(epochs[0]) != set(epochs[1])
    made.close()


def test_no_batch_has_a_product_or_text_twice() -> None:
    made, looked = source(grouping(space=1000), epochs=6, title_share=0.8), 0
    for step in range(made.steps):
        if step >= made.per_epoch and made.rates[2] == 0:  # no pick was forced
            batch = made.batches(step)[0]
            assert len(set(batch["product"].tolist())) == len(set(batch["text"].tolist())) == BATCH
            looked += 1
        made.observe(step, outputs(step))
    assert looked
    made.close()


def test_texts_that_differ_by_case_and_space_are_one() -> None:
    made = source(None)
    places = [made.texts.place[text] for text in ("w1", "w1  W1", "w8  W1")]
    assert len(set(made._same[places].tolist())) == 3
    assert made._same.max() < len(made.texts.distinct)
    made.close()


def test_nothing_is_made_across_the_border_before_the_grouping() -> None:
    made = source(grouping())
    run(made, 0, made.per_epoch - 1)
    last = made.per_epoch - 1
    made.batches(last)
    assert len(made.plan) == made.per_epoch
    assert made._ahead is None
    made.observe(last, outputs(last))
    assert len(made.plan) == 2 * made.per_epoch
    made.close()


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("stop", [1, 7, 10, 11, 12, 21, 25])
def test_a_resumed_run_sees_the_same_batches(stop: int, grouped: bool) -> None:
    how = grouping(queue=16) if grouped else None
    whole, before = source(how), source(how)
    expected = run(whole)
    run(before, 0, stop)
    state = {key: value.clone() for key, value in before.state().items()}
    after = source(how)
    after.load_state(state)
    assert same(run(after, stop), expected[stop:])
    assert torch.equal(after.rates, whole.rates)
    assert after.state().keys() == whole.state().keys()
    assert all(torch.equal(value, whole.state()[key]) for key, value in after.state().items())
    for made in (whole, before, after):
        made.close()


def test_shares_of_picks_are_reported() -> None:
    made = source(grouping())
    assert made.rates.tolist() == [0, 0, 0]
    run(made)
    assert made.rates.sum().item() == pytest.approx(1)
    made.close()


def test_random_batches_differ_by_epoch() -> None:
    made = source(None)
    run(made)
    epochs = [[made.row_ids(e * made.per_epoch + i) for i in range(made.per_epoch)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(made.plan) == made.steps
    made.close()
