"""What benchmarks of statements about pictures share: their items, and accuracy with or without consistency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.official.contract import Vectors
from training.official.scoring import table
from training.ranking import TIE

Row = tuple[str, int, list[str], str, str]  # item_id, group, pictures, text, label
ITEMS = pa.schema([
    ("item_id", pa.string()), ("group", pa.int64()), ("pictures", pa.list_(pa.string())), ("text", pa.string()),
    ("label", pa.string()),
])  # fmt: skip


def labelled(rows: Sequence[Row], classes: Sequence[str], path: Path) -> pa.Table:
    """Items of `ITEMS`. Raises `UserError` if there is none, an id occurs twice, or a label is none of `classes`."""
    if not rows:
        raise UserError(f"{path}: holds no items. Fetch the official file again.")
    seen: set[str] = set()
    for name, _, _, text, label in rows:
        if name in seen:
            raise UserError(f"{path}: item {name} occurs twice. Fetch the official file again.")
        if label not in classes:
            raise UserError(f"{path}: item {name}: label `{label}` is none of {', '.join(classes)}. Fetch it again.")
        if not text.strip():
            raise UserError(f"{path}: item {name}: its text is empty. Fetch the official file again.")
        seen.add(name)
    return pa.Table.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names=ITEMS.names).cast(ITEMS)


def right(
    items: pa.Table, found: Vectors, classes: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Whether the true class is likelier than every other, and by how much than the likeliest of them. (N,) each."""
    place = {name: number for number, name in enumerate(classes)}
    truth = np.array([place[label] for label in items["label"].to_pylist()])
    rows, others = np.arange(len(truth)), found.astype(np.float64)
    own = others[rows, truth].copy()
    others[rows, truth] = -np.inf
    margin = own - others.max(1)
    return margin > TIE, margin


def accuracy(
    name: str, items: pa.Table, found: Vectors, classes: Sequence[str], slices: Sequence[str] | None = None,
    metric: str = "accuracy",
) -> pa.Table:  # fmt: skip
    """Outcomes of the share of items answered right; the slice is the true class unless told."""
    success, margin = right(items, found, classes)
    return table(name, metric, items, success, margin, slices or items["label"].to_pylist())


def both(
    name: str, items: pa.Table, found: Vectors, classes: Sequence[str], sentences: Sequence[str], prefix: str = ""
) -> pa.Table:
    """Outcomes of `accuracy`, and of `consistency`: of each sentence, whether all its items were answered right.

    Args:
        sentences: of every item the key of the sentence that it shares with others.
        prefix: of the metrics' names.
    """
    success, margin = right(items, found, classes)
    keys, first, of = np.unique(np.array(sentences), return_index=True, return_inverse=True)
    worst = np.full(len(keys), np.inf)
    np.minimum.at(worst, of, margin)
    whole = items.take(pa.array(first)).set_column(0, "item_id", pa.array([str(key) for key in keys]))
    return pa.concat_tables([
        table(name, f"{prefix}accuracy", items, success, margin, items["label"].to_pylist()),
        table(name, f"{prefix}consistency", whole, worst > TIE, worst),
    ])  # fmt: skip
