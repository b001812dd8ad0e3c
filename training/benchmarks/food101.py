"""UPMC-Food101 in MMBT's files: which of 101 dishes is on a web page, by its picture and its text.

Accuracy on the test part, and by the text alone: titles of pages often name the dish, and whoever reads them need not
look. MMBT drew its 5,000 development items anew on every run of its script; here they are drawn from its train and dev
files together, by class, with one seed. Texts are taken as the files have them, which is lower-case and without
punctuation; items without a text are left out, as MMBT does. A tie is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Official, Picture
from training.official.files import field, find, read_json_lines
from training.official.recognition import choices, chosen
from training.official.scoring import means

NAME, CLASSES = "upmc_food101", 101
DEV, SEED = 5000, 101
PARTS = "test", "dev"
ITEMS = pa.schema([
    ("item_id", pa.string()), ("group", pa.int64()), ("part", pa.string()), ("pictures", pa.list_(pa.string())),
    ("text", pa.string()), ("label", pa.string()),
])  # fmt: skip


def load(folder: Path) -> pa.Table:
    """The test part, and the development part where train.jsonl is installed. Raises `UserError`."""
    test, (dev, _) = _read(folder, "test"), _split(folder)
    tables = [test] if dev is None else [test, _checked(dev, test, folder)]
    return pa.concat_tables(tables).set_column(1, "group", pa.array(range(sum(map(len, tables)))))


def fit_items(folder: Path) -> pa.Table | None:
    """What a head may be fitted on: the train and dev files without the development part; None if not installed."""
    return _split(folder)[1]


def _read(folder: Path, part: str) -> pa.Table:
    path, seen = f"{part}.jsonl", set[str]()
    rows: list[tuple[str, int, str, list[str], str, str]] = []
    for number, entry in read_json_lines(folder, path):
        where = f"{folder / path}: line {number}"
        name = str(field(entry, "id", (str, int), where))
        label, text, picture = (field(entry, key, str, where) for key in ("label", "text", "img"))
        if name in seen or not label or not picture:
            what = f"id {name} occurs twice" if name in seen else "field `label` or `img` is empty"
            raise UserError(f"{where}: {what}. Make the files again with MMBT's script.")
        seen.add(name)
        if text.strip():
            rows.append((f"{part} {name}", len(rows), part, [f"{NAME}/{picture}"], text, label))
    if not rows:
        raise UserError(f"{folder / path}: holds no item with a text. Make the files again with MMBT's script.")
    return pa.Table.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names=ITEMS.names).cast(ITEMS)


def _split(folder: Path) -> tuple[pa.Table | None, pa.Table | None]:
    """The development part and the rest of the train and dev files, or two None."""
    from sklearn.model_selection import train_test_split

    files = [part for part in ("train", "dev") if find(folder, f"{part}.jsonl")]
    if "train" not in files:
        return None, None
    pool = pa.concat_tables([_read(folder, part) for part in files]).sort_by("item_id")
    labels = pool["label"].to_pylist()
    try:
        rest, dev = train_test_split(
            np.arange(len(labels)), test_size=min(DEV, len(labels) // 2), stratify=labels, random_state=SEED
        )
    except ValueError as error:
        raise UserError(f"{folder / 'train.jsonl'}: cannot be split by class ({error}).") from None
    drawn = pool.take(np.sort(dev))
    return drawn.set_column(2, "part", pa.array(["dev"] * len(drawn))), pool.take(np.sort(rest))


def _checked(dev: pa.Table, test: pa.Table, folder: Path) -> pa.Table:
    both = set(pc.list_element(dev["pictures"], 0).to_pylist()) & set(pc.list_element(test["pictures"], 0).to_pylist())
    if both:
        raise UserError(f"{folder}: {min(both)} is both in train.jsonl and in test.jsonl. Make the files again.")
    return dev


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of accuracy, by picture and text and by text alone; detail: 1 + the chosen class, 0 if undecided."""
    classes = sorted(set(items["label"].to_pylist()))
    found = []
    for part in PARTS:
        mine = items.filter(pc.equal(items["part"], part))
        if mine.num_rows:
            prefix = "" if part == "test" else f"{part} "
            pictures = [Picture(paths[0]) for paths in mine["pictures"].to_pylist()]
            found += [
                _answered(f"{prefix}accuracy", mine, pictures, classes, exam),
                _answered(f"{prefix}text-only accuracy", mine, [None] * len(pictures), classes, exam),
            ]
    return pa.concat_tables(found)


def _answered(
    metric: str, items: pa.Table, pictures: Sequence[Picture | None], classes: Sequence[str], exam: Exam
) -> pa.Table:
    picked, _ = choices(exam.classes(NAME, pictures, items["text"].to_pylist(), classes))
    return chosen(NAME, metric, items, classes, picked)


BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="UPMC-Food101",
        ability="classification of web pages by picture and text",
        files=(File("test.jsonl"), File("train.jsonl", needed=False), File("dev.jsonl", needed=False)),
        source="{train,dev,test}.jsonl, as the script of github.com/facebookresearch/mmbt makes them from UPMC's data "
        "set (research).",
        pictures=f"{NAME}/IMG, of the lines' `img`",
        load=load,
        score=score,
        metrics=means,
        headline="accuracy",
        chance={"accuracy": 100 / CLASSES, "text-only accuracy": 100 / CLASSES},
    )
}
