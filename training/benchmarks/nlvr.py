"""NLVR: is a sentence true of a picture of three boxes with shapes? (Suhr, Lewis, Yeh, Artzi, ACL 2017)

lil-lab/nlvr, CC-BY-4.0. An identifier is split-set-number: the pairs of a set share one sentence, whose consistency is
that all of them are right. The official scorer reads predictions and has no rule for ties; here a tie is wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.params import UserError
from training.official import files
from training.official.contract import Exam, File, Official, Picture
from training.official.scoring import means
from training.official.statements import both, labelled

NAME = "nlvr"
DEV, DEV_PICTURES = "nlvr-dev.jsonl", "nlvr-dev.parquet"
TRAIN, TRAIN_PICTURES = "nlvr-train.jsonl", "nlvr-train.parquet"
DEV_SHA256 = "193a5efe19a611e8dd393c6a9cb439837b766c55704e1473b4dfbfe63ee3cacd"
PICTURES_SHA256 = "d7800bc7f4772e5b58b72d9c6e35fc50f6962e2d0ee93a4787ff66a2d7070942"
CLASSES = ("false", "true")
SOURCE = "Statements and pictures: github.com/lil-lab/nlvr (CC-BY-4.0), pictures as parquet with columns id and image."


def load(folder: Path) -> pa.Table:
    """The dev split: item_id, group (the set), pictures, text, label."""
    return _items(folder, DEV, DEV_PICTURES)


def fit_items(folder: Path) -> pa.Table | None:
    """The training split in the same form, None where it is not installed."""
    return _items(folder, TRAIN, TRAIN_PICTURES) if files.find(folder, TRAIN) else None


def score(items: pa.Table, exam: Exam) -> pa.Table:
    pictures = [Picture(paths[0]) for paths in items["pictures"].to_pylist()]
    found = exam.classes(NAME, pictures, items["text"].to_pylist(), CLASSES)
    return both(NAME, items, found, CLASSES, np.array(items["group"]).astype(str).tolist())


def _items(folder: Path, path: str, pictures: str) -> pa.Table:
    rows = []
    for line, entry in files.read_json_lines(folder, path):
        where = f"{folder / path}: line {line}"
        name, text, label = (files.field(entry, key, str, where) for key in ("id", "sentence", "label"))
        parts = name.split("-")
        if len(parts) != 3 or not parts[1].isdigit():
            raise UserError(f"{where}: `id` {name} is no split-set-number. Fetch the official file again.")
        rows.append((name, int(parts[1]), [f"{NAME}/{pictures}#{name}"], text, label))
    items = labelled(rows, CLASSES, folder / path)
    _demand(folder / pictures, items["item_id"].to_pylist())
    return items


def _demand(path: Path, names: list[str]) -> None:
    """Raise `UserError` unless the parquet file has a picture of every item."""
    try:
        known = set(pq.read_table(path, columns=["id"])["id"].to_pylist())
    except (OSError, pa.ArrowException) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({words}). Fetch the official file again.") from None
    if missing := [name for name in names if name not in known]:
        raise UserError(f"{path}: has no picture of {missing[0]} ({len(missing):,} are missing). Fetch it again.")


BENCHMARKS = {
    NAME: Official(
        name=NAME, title="NLVR", ability="counting, colours and places in drawn scenes",
        files=(
            File(DEV, DEV_SHA256), File(DEV_PICTURES, PICTURES_SHA256), File(TRAIN, needed=False),
            File(TRAIN_PICTURES, needed=False),
        ),
        source=SOURCE, pictures="in the parquet files", asks="head", load=load, score=score, metrics=means,
        headline="accuracy", chance={"accuracy": 50.0},
    )
}  # fmt: skip
