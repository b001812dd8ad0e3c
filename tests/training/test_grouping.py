"""Grouped mini-batches and ITM negatives against numbers worked out by hand, and what any order must hold to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.fused.grouping import Collected, Rule, chain, mini_batches, negatives, regroup, take_in, text_ids

S = np.array([
    [.80, .95, .82, .75, .30, .20], [.90, .78, .40, .35, .60, .10], [.50, .45, .85, .70, .25, .88],
    [.30, .20, .65, .90, .55, .60], [.10, .15, .35, .50, .70, .45], [.25, .05, .92, .40, .58, .83],
], np.float32)  # fmt: skip
P = np.array([0, 0, 1, 2, 3, 1])  # A A B C D B
X = np.arange(6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def linked(rule: Rule, words: Any = X, products: Any = P, similarity: Any = S) -> tuple[list[int], dict[str, int]]:
    order, picks = chain(similarity, products, words, 3, rule, 0, rng())
    return order.tolist(), dict(picks)


def collected(count: int, products: int, seed: int = 0, width: int = 8) -> Collected:
    """Products in clusters, each with views; texts of like products are sometimes the same."""
    draw = rng(seed)
    product = draw.integers(products, size=count)
    words = np.where(draw.random(count) < 0.2, product % 7, 1000 + np.arange(count))
    centres = draw.normal(size=(products, width))
    image = (centres[product] + 0.5 * draw.normal(size=(count, width))).astype(np.float32)
    text = (centres[product] + 0.5 * draw.normal(size=(count, width))).astype(np.float32)
    image, text = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (image, text))
    return Collected(image, text, 7 * np.arange(count)[::-1].copy() + 2**24, product, words)


# --- the chain by hand ------------------------------------------------------------------------------------------------


def test_top1_walks_to_the_nearest() -> None:
    order, _ = linked(Rule(hard="top1"))
    assert order == [0, 1, 2, 5, 3, 4]
    assert P[order[0]] == P[order[1]]  # the first mini-batch holds product A twice


def test_semi_hard_refuses_the_same_product_and_what_is_nearer_than_the_pair() -> None:
    order, picks = linked(Rule(hard="semi"))
    assert order == [0, 3, 2, 1, 4, 5]
    assert all(len(set(P[order[start : start + 3]])) == 3 for start in (0, 3))
    assert picks.get("forced", 0) == 0


def test_exclude_id_refuses_the_same_product_only() -> None:
    assert linked(Rule(hard="exclude_id"))[0][:2] == [0, 2]  # .82, though it is not below .80


def test_the_same_text_is_refused_too() -> None:
    assert linked(Rule(hard="semi"), words=np.array([0, 1, 2, 0, 4, 5]))[0][1] != 3


def test_margin_narrows_what_is_semi_hard() -> None:
    assert linked(Rule(hard="semi", margin=0.06))[0][1] == 4  # .75 is not below .80 - .06


def test_two_views_do_not_meet_again_in_one_batch() -> None:
    """0 (A), then 2 (B); the nearest allowed to 2 would be 1, which is A again and two steps from 0."""
    similarity = np.full((4, 4), 0.1, np.float32) + 0.8 * np.eye(4, dtype=np.float32)
    similarity[0, 2], similarity[1, 2], similarity[3, 2] = 0.8, 0.7, 0.2
    order, picks = chain(similarity, np.array([0, 0, 1, 2]), np.arange(4), 3, Rule(), 0, rng())
    assert order.tolist() == [0, 2, 3, 1]
    assert picks == {"rule": 3}


def test_fallback_takes_the_farthest_and_is_counted() -> None:
    similarity = np.array([[0.1, 0.9, 0.5], [0.9, 0.1, 0.9], [0.9, 0.9, 0.1]], np.float32)
    order, picks = chain(similarity, np.arange(3), np.arange(3), 3, Rule(), 0, rng())
    assert order.tolist() == [0, 2, 1]
    assert picks == {"fallback": 2}


def test_forced_pairs_are_counted() -> None:
    order, picks = chain(S[:3, :3], np.array([0, 0, 0]), np.arange(3), 3, Rule(), 0, rng())
    assert sorted(order.tolist()) == [0, 1, 2]
    assert picks == {"forced": 2}


def test_rank_window_takes_ranks_alike() -> None:
    rule = Rule(hard="rank_window", window=(2, 3))
    draw = rng(1)
    second = [int(chain(S, np.arange(6), X, 6, rule, 0, draw)[0][1]) for _ in range(400)]
    assert set(second) == {2, 3}  # ranks of row 0: 1, 2, 3, 4, 5
    assert abs(second.count(2) - 200) < 60


def test_scaling_by_a_small_temperature_changes_nothing() -> None:
    assert linked(Rule(hard="top1"), similarity=S / 0.001)[0] == linked(Rule(hard="top1"))[0]
    assert linked(Rule(), similarity=S / 0.001)[0] == linked(Rule())[0]


# --- whole orders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", ["top1", "exclude_id", "semi", "rank_window"])
@pytest.mark.parametrize(("count", "batch", "space"), [(64, 4, 16), (67, 4, 16), (5, 4, 16), (60, 5, 17), (33, 8, 3)])
def test_an_order_is_a_permutation_of_what_was_seen(hard: Any, count: int, batch: int, space: int) -> None:
    seen = collected(count, products=23)
    order, picks = regroup(seen, batch, space, Rule(hard=hard), rng(2))
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == sorted(seen.index.tolist())
    assert sum(picks.values()) == count - -(-count // max(batch, space // batch * batch))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("hard", ["exclude_id", "semi", "rank_window"])
def test_no_batch_holds_a_product_or_text_twice_unless_forced(hard: Any, seed: int) -> None:
    seen = collected(96, products=60, seed=seed)
    order, picks = regroup(seen, 4, 32, Rule(hard=hard), rng(seed))
    place = {index: i for i, index in enumerate(seen.index.tolist())}
    rows = np.array([place[index] for index in order.tolist()])
    pairs = 0
    for start in range(0, len(rows), 4):
        chunk = rows[start : start + 4]
        pairs += len(set(seen.product[chunk])) < 4 or len(set(seen.words[chunk])) < 4
    assert pairs <= picks["forced"]


def test_chunks_survive_the_shuffle_intact() -> None:
    order = np.arange(100, 122)
    chunks = mini_batches(order, 4, rng(3))
    assert len(chunks) == 5
    assert sorted(tuple(chunk) for chunk in chunks) == [tuple(range(s, s + 4)) for s in range(100, 120, 4)]
    assert [chunk[0] for chunk in chunks] != list(range(100, 120, 4))


def in_batch_similarity(seen: Collected, chunks: list[Any]) -> float:
    place = {index: i for i, index in enumerate(seen.index.tolist())}
    values = []
    for chunk in chunks:
        rows = np.array([place[index] for index in chunk.tolist()])
        s = seen.image[rows] @ seen.text[rows].T
        values.append(s[~np.eye(len(s), dtype=bool)].mean())
    return float(np.mean(values))


def test_grouped_batches_are_nearer_than_random_and_semi_hard_less_near_than_top1() -> None:
    seen = collected(256, products=90)
    means = {
        hard: in_batch_similarity(seen, mini_batches(regroup(seen, 8, 128, Rule(hard=hard), rng(4))[0], 8, rng(5)))
        for hard in ("top1", "semi")
    }
    random = in_batch_similarity(seen, mini_batches(rng(6).permutation(seen.index), 8, rng(5)))
    assert random + 0.02 < means["semi"] < means["top1"]


def test_what_an_epoch_left_out_comes_into_the_next() -> None:
    products, words = np.arange(30) // 2, np.arange(30)
    chunks = mini_batches(rng(7).permutation(24), 4, rng(8))
    made = take_in(chunks, np.arange(24, 30), products, words, rng(9))
    flat = np.concatenate(made).tolist()
    assert len(made) == len(chunks)
    assert len(set(flat)) == 24
    assert set(range(24, 30)) <= set(flat)
    kept = {tuple(chunk) for chunk in made} & {tuple(chunk) for chunk in chunks}
    assert len(kept) == len(chunks) - 2  # only as many as hold six products are broken up


def test_left_out_products_that_fit_nowhere_stay_out() -> None:
    chunks = [np.array([0, 1]), np.array([2, 3])]
    same = take_in(chunks, np.array([4]), np.zeros(5, np.int64), np.arange(5), rng())
    assert {tuple(chunk) for chunk in same} == {(0, 1), (2, 3)}


def test_texts_equal_but_for_case_and_space_are_one() -> None:
    assert text_ids(["Red  shirt", "red shirt ", "red shirts"]).tolist() == [0, 0, 1]


# --- negatives of the matching loss -----------------------------------------------------------------------------------

FOUR = torch.tensor(S[:4, :4])
P4, X4 = torch.tensor(P[:4]), torch.arange(4)


def test_negatives_by_hand() -> None:
    assert negatives(FOUR, P4, X4, Rule(hard="top1")).index.tolist() == [1, 0, 3, 2]
    assert negatives(FOUR, P4, X4, Rule()).index.tolist() == [3, 2, 3, 2]
    assert negatives(FOUR.T, P4, X4, Rule(hard="top1")).index.tolist() == [1, 0, 0, 0]
    assert negatives(FOUR.T, P4, X4, Rule()).index.tolist() == [2, 2, 0, 0]


def test_a_negative_never_shares_product_or_text() -> None:
    """The nearest to 0 is 1 and to 1 it is 0, which here are one product, or have one text."""
    rule, apart = Rule(hard="exclude_id"), torch.arange(4)
    assert negatives(FOUR, apart, apart, rule).index.tolist()[:2] == [1, 0]
    assert negatives(FOUR, P4, apart, rule).index.tolist()[:2] == [2, 2]
    assert negatives(FOUR, apart, torch.tensor([5, 5, 6, 7]), rule).index.tolist()[:2] == [2, 2]


def test_negative_that_is_too_near_gives_way_to_the_farthest() -> None:
    s = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.8, 0.3], [0.0, 0.1, 0.7]])
    found = negatives(s, torch.arange(3), torch.arange(3), Rule())
    assert found.index.tolist() == [2, 2, 1]
    assert found.fallback.tolist() == [True, False, False]


def test_a_row_without_any_negative_is_dropped() -> None:
    found = negatives(FOUR[:3, :3], torch.tensor([0, 0, 0]), torch.arange(3), Rule())
    assert found.valid.tolist() == [False] * 3
    found = negatives(FOUR[:3, :3], torch.tensor([0, 0, 1]), torch.arange(3), Rule())
    assert found.valid.tolist() == [True] * 3


def test_drawn_negatives_stay_in_the_allowed_set() -> None:
    chance = torch.rand(500, 4, 4, generator=torch.Generator().manual_seed(1))
    for rule, allowed in ((Rule(), {3}), (Rule(hard="exclude_id"), {2, 3}), (Rule(hard="top1"), {1, 2, 3})):
        assert {int(negatives(FOUR, P4, X4, rule, c, 0.5).index[0]) for c in chance} == allowed


def test_drawn_negatives_follow_the_softmax() -> None:
    chance = torch.rand(4000, 4, 4, generator=torch.Generator().manual_seed(2))
    drawn = [int(negatives(FOUR, P4, X4, Rule(hard="exclude_id"), c, 0.1).index[0]) for c in chance]
    p = torch.tensor([0.82, 0.75]).div(0.1).softmax(0)[0].item()
    assert abs(drawn.count(2) / 4000 - p) < 3 * (p * (1 - p) / 4000) ** 0.5


def test_window_of_ranks_for_negatives() -> None:
    chance = torch.rand(200, 4, 4, generator=torch.Generator().manual_seed(3))
    rule = Rule(hard="rank_window", window=(2, 3))
    assert {int(negatives(FOUR, torch.arange(4), X4, rule, c).index[0]) for c in chance} == {2, 3}
    assert {int(negatives(FOUR, P4, X4, rule, c).index[0]) for c in chance} == {3}  # two are left: ranks 1 and 2
    with pytest.raises(ValueError, match="window must be"):
        Rule(window=(3, 2))
