"""Attribute labels of products: the classes of each task, and which class a product has.

A task is a column of products.parquet. Its classes are the values that at least `LEAST` products of the train split
have, sorted; a product with a rarer value, or with none, has the label -1 there: its class cannot be learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.params import UserError

TASKS = ("article_type", "base_colour", "gender", "season", "usage")
LEAST = 10
ABSENT = -1
PRODUCTS = "products.parquet"


def classes(dataset: Path) -> dict[str, list[str]]:
    """{task: its classes, sorted}; a task of which no value is frequent enough has an empty list."""
    return _classes(_read(dataset))


def labels(dataset: Path, rows: str | Sequence[str]) -> npt.NDArray[np.int64]:
    """Labels (N, K), one column per task of `TASKS`: a place in the list that `classes` gives, or -1.

    `rows` names a split (its products in the dataset's order), or lists row ids. Raises `UserError` for an unknown one.
    """
    table = _read(dataset)
    known = _classes(table)
    if isinstance(rows, str):
        chosen = table[table.split == rows]
    else:
        table = table.set_index("row_id")
        if absent := [row for row in rows if row not in table.index]:
            raise UserError(f"{dataset / PRODUCTS}: has no product {absent[0]}. Build the dataset again.")
        chosen = table.loc[list(rows)]
    columns = [pd.Categorical(chosen[task], categories=known[task]).codes for task in TASKS]
    return np.stack(columns, axis=1).astype(np.int64)


def _read(dataset: Path) -> pd.DataFrame:
    columns = ["row_id", "split", *TASKS]
    table = pd.read_parquet(dataset / PRODUCTS)
    if missing := [column for column in columns if column not in table]:
        raise UserError(f"{dataset / PRODUCTS}: column `{missing[0]}` is missing. Run `dvc repro dataset`.")
    return table[columns]


def _classes(table: pd.DataFrame) -> dict[str, list[str]]:
    train = table[table.split == "train"]
    counts = {task: train[task].value_counts() for task in TASKS}
    return {task: sorted(found[found >= LEAST].index.tolist()) for task, found in counts.items()}
