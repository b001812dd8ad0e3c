"""Attribute labels: frequent values of the train split are classes, everything else is -1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.params import UserError
from training.labels import TASKS, classes, labels


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """20 train products and 4 test products; the colour `teal` has 9 in train, `red` 10, one product has none."""
    rows = [
        {"row_id": f"r{i}", "split": "train", "article_type": "Tops" if i % 2 else "Bags",
         "base_colour": "red" if i < 10 else ("teal" if i < 19 else None), "gender": "Men", "season": f"s{i}",
         "usage": "Casual"}
        for i in range(20)
    ]  # fmt: skip
    unseen = {"article_type": "Hats", "base_colour": "teal", "gender": "Women", "season": "s1", "usage": "Casual"}
    rows += [{"row_id": f"t{i}", "split": "test", **unseen} for i in range(30)]
    pd.DataFrame(rows).to_parquet(tmp_path / "products.parquet")
    return tmp_path


def test_classes_are_the_frequent_values_of_the_train_split(dataset: Path) -> None:
    found = classes(dataset)
    assert tuple(found) == TASKS
    assert found == {
        "article_type": ["Bags", "Tops"], "base_colour": ["red"], "gender": ["Men"], "season": [], "usage": ["Casual"],
    }  # fmt: skip


def test_labels_of_a_split_and_of_rows(dataset: Path) -> None:
    train = labels(dataset, "train")
    assert train.shape == (20, len(TASKS))
    assert train.dtype == np.int64
    assert train[:, 0].tolist() == [0, 1] * 10
    assert train[:, 1].tolist() == [0] * 10 + [-1] * 10  # nine of teal are too few, and one has no colour
    assert labels(dataset, "test").tolist() == [[-1, -1, -1, -1, 0]] * 30
    assert labels(dataset, ["r19", "r0"]).tolist() == [[1, -1, 0, -1, 0], [0, 0, 0, -1, 0]]


def test_errors_name_the_row_or_the_column(dataset: Path) -> None:
    with pytest.raises(UserError, match="has no product nobody"):
        labels(dataset, ["r0", "nobody"])
    table = pd.read_parquet(dataset / "products.parquet")
    table.drop(columns="usage").to_parquet(dataset / "products.parquet")
    with pytest.raises(UserError, match="column `usage` is missing"):
        classes(dataset)
