"""Numbers and checks of a dataset, on tables small enough to count by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from catalogs import product

from data.dataset_rows import Products
from data.statistics import _giant, _held_back, _rare, _share, _unique, _unseen, drift, statistics


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Products that differ in id, picture and family, and in what is given."""
    numbered = enumerate(rows)
    own = [
        {"row_id": f"r{n}", "id": str(n), "image_key": f"k{n}", "family": n, "group": n} | row for n, row in numbered
    ]
    return pd.DataFrame([product(**row) for row in own])


def test_counts_by_hand() -> None:
    rows = table({"family": 0, "split": "train"}, {"family": 0, "split": "train", "base_colour": None, "group": 0},
                 {"split": "test", "image_key": "k0", "catalog": "grocery", "derived_caption": None})  # fmt: skip
    found = statistics(rows)
    assert {name: found[name] for name in ("products", "images", "groups", "families", "largest_family")} == {
        "products": 3, "images": 2, "groups": 2, "families": 2, "largest_family": 2
    }  # fmt: skip
    assert found["catalogs"] == {"fashion": 2, "grocery": 1}
    assert found["attributes"]["base_colour"] == {
        "White": {"train": 1, "val": 0, "test": 1}, "(none)": {"train": 1, "val": 0, "test": 0}
    }  # fmt: skip
    assert [(row["split"], row["products"], row["families"]) for row in found["splits"]] == [
        ("train", 2, 1), ("val", 0, 0), ("test", 1, 1)
    ]  # fmt: skip
    assert found["caption_words"] == {"mean": 5.5, "max": 6}  # "white tshirts for men, casual wear", and one word less


def test_without_any_caption_there_is_no_length() -> None:
    assert statistics(table({"derived_caption": None}))["caption_words"] is None


def test_drift_is_measured_within_a_catalog() -> None:
    old = [{"drop_id": "a", "gender": "Men"}] * 3 + [{"drop_id": "b", "catalog": "grocery", "gender": None}]
    new = [{"drop_id": "c", "gender": "Men"}, {"drop_id": "c", "gender": "Women"}]
    row = next(row for row in drift(table(*old, *new)) if row["attribute"] == "gender")
    assert row == {"attribute": "gender", "distance": 0.5, "grew_most": "Women", "by": 0.5, "shrank_most": "Men",
                   "to": -0.5}  # fmt: skip
    assert drift(table(*old)) == []  # the groceries are the first of their catalog


@pytest.mark.parametrize(("families", "passed"), [([0] * 5 + [*range(1, 96)], True), ([0] * 6 + [*range(1, 95)], False),
                                                  ([0, 0, 1], True)])  # fmt: skip
def test_a_giant_family_is_reported(families: list[int], passed: bool) -> None:
    check = _giant(table(*({"family": family} for family in families)))
    assert (check["passed"], check["count"]) == (passed, families.count(0))


def test_shares_count_families_whatever_their_numbers_are() -> None:
    """Two families of five, numbered as in a dataset whose others were withdrawn: 5 · 1/2 · sqrt(2) / 10."""
    rows = table(*({"family": family, "split": split} for family, split in [(7, "train")] * 5 + [(10**9, "test")] * 5))
    check = _share(rows, "test", 0.5)
    assert check["passed"]
    assert check["standard_deviation"] == 0.3536


def test_rare_and_unseen_types_ignore_missing_ones() -> None:
    rows = table({"article_type": None}, {"article_type": None, "split": "test"}, {"split": "test"})
    assert _rare(rows)["examples"] == ["Tshirts"]
    assert _unseen(rows)["examples"] == ["r2"]


def test_one_row_for_each_product_of_each_catalog() -> None:
    assert _unique(table({"id": "1"}, {"id": "1", "catalog": "grocery"}))["passed"]
    assert _unique(table({"id": "1"}, {"id": "1"}))["examples"] == ["r1"]


def test_rows_held_back_are_named() -> None:
    rows = table({})
    made = Products(rows=rows, held_back=rows, replaced=0, withdrawn=0)
    assert (_held_back(made)["passed"], _held_back(made)["examples"]) == (False, ["r0"])
    assert _held_back(Products(rows=rows, held_back=rows[:0], replaced=0, withdrawn=0))["passed"]
