"""Groups and splits: components, stability while the catalog grows, and shares."""

from __future__ import annotations

import collections

import numpy as np
from catalogs import starter_rows
from hypothesis import given
from hypothesis import strategies as st

from data.splits import SPLITS, assign, group_rows, position, share_spread, split_key
from data.text import title_key

ORDER = {split: place for place, split in enumerate(SPLITS)}
maybe = st.one_of(st.none(), st.sampled_from("abcdef"))
rows = st.lists(st.tuples(maybe, st.sampled_from("uvwxyz"), st.sampled_from("0123456789")), min_size=1, max_size=30)


def split(items: list[tuple[str | None, str, str]]) -> list[str]:
    titles, images, ids = (list(column) for column in zip(*items, strict=True))
    groups = group_rows(titles, images, ids)
    keys = [split_key(title, image) for title, image in zip(titles, images, strict=True)]
    return list(assign(groups, keys, val_share=0.25, test_share=0.25))


def test_rows_are_linked_through_any_key_and_none_links_nothing() -> None:
    titles = ["a", None, "b", None, "b", "c"]
    images = ["i", "j", "j", "k", "l", "m"]
    assert group_rows(titles, images).tolist() == [0, 1, 1, 2, 1, 3]


@given(rows)
def test_groups_are_the_connected_components(items: list[tuple[str | None, str, str]]) -> None:
    groups = group_rows(*(list(column) for column in zip(*items, strict=True)))
    labels = list(range(len(items)))  # by brute force: spread the smallest label until nothing changes
    while True:
        spread = [
            min(labels[j] for j, other in enumerate(items) if i == j or _linked(item, other))
            for i, item in enumerate(items)
        ]
        if spread == labels:
            break
        labels = spread
    assert all((groups[i] == groups[j]) == (labels[i] == labels[j]) for i in range(len(items)) for j in range(i))
    assert list(dict.fromkeys(groups.tolist())) == list(range(groups.max() + 1))


def _linked(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    return any(a is not None and a == b for a, b in zip(one, other, strict=True))


@given(rows, rows)
def test_new_rows_never_move_a_product_away_from_train(
    first: list[tuple[str | None, str, str]], second: list[tuple[str | None, str, str]]
) -> None:
    before, after = split(first), split(first + second)
    assert all(ORDER[later] <= ORDER[earlier] for earlier, later in zip(before, after, strict=False))


@given(rows)
def test_no_title_picture_or_id_crosses_splits(items: list[tuple[str | None, str, str]]) -> None:
    found = split(items)
    for column in range(3):
        by_key = collections.defaultdict(set)
        for item, where in zip(items, found, strict=True):
            if item[column] is not None:
                by_key[item[column]].add(where)
        assert all(len(splits) == 1 for splits in by_key.values())


def test_a_replaced_title_keeps_the_product_in_train() -> None:
    """A product whose title changes is linked by its id to what it was, and stays where it was."""
    titles = sorted((f"title {n}" for n in range(200)), key=lambda title: position(split_key(title, "")))
    low, high = titles[0], titles[-1]
    assert split([(high, "x", "7")]) == ["test"]
    assert split([(low, "x", "7"), (high, "y", "7")]) == ["train", "train"]


def test_positions_are_uniform() -> None:
    places = np.array([position(f"key {n}") for n in range(4000)])
    assert abs(places.mean() - 0.5) < 0.02
    assert np.abs(np.quantile(places, [0.05, 0.2, 0.8, 0.95]) - [0.05, 0.2, 0.8, 0.95]).max() < 0.02


def test_spread_of_a_share() -> None:
    """Ten groups of one at share 1/2: sqrt(10 · 1/4) / 10; one group of ten: 10 · 1/2 / 10."""
    assert np.isclose(share_spread(np.arange(10), 0.5), np.sqrt(2.5) / 10)
    assert np.isclose(share_spread(np.zeros(10, dtype=np.int64), 0.5), 0.5)


def test_starter_catalog_splits_hold_when_the_second_drop_lands() -> None:
    old, new = starter_rows("drop-1"), starter_rows("drop-2")
    both = [*old, *new]
    titles = [title_key(row["title"]) for row in both]
    images = [row["image_key"] for row in both]
    ids = [row["id"] for row in both]
    found = []
    for count in (len(old), len(both)):
        groups = group_rows(titles[:count], images[:count], ids[:count])
        keys = [split_key(*pair) for pair in zip(titles[:count], images[:count], strict=True)]
        splits = assign(groups, keys, val_share=0.05, test_share=0.15)
        share = collections.Counter(splits)["test"] / count
        assert abs(share - 0.15) < 4 * share_spread(groups, 0.15)
        for keyed in (titles[:count], images[:count]):
            pairs = {(key, where) for key, where in zip(keyed, splits, strict=True) if key is not None}
            assert len(pairs) == len({key for key, _ in pairs})
        found.append(splits)
    assert 1300 <= found[0].count("test") <= 1500
    moved = [(a, b) for a, b in zip(*found, strict=False) if ORDER[b] > ORDER[a]]
    assert moved == []
