"""Attribute recall at precision 0.9, as MRWPA is scored: how many products can be labelled without a human?

MRWPA is private (tasks Color, Pattern and Style), and its exact procedure is not published. Here: of each task the
labelled items are sorted by the probability of their likeliest class, and over all thresholds, equal probabilities
together, it is the largest share of the labelled items that is accepted and right while nine in ten of those accepted
are right; 0 where no threshold is that good. The headline is the plain mean over tasks. Any catalog of that form can be
put in its place: products of one's own, with the classes of each task.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.official.files import field, read_json, read_json_lines
from training.official.recognition import choices
from training.official.scoring import means, table
from training.outcomes import cells, column
from training.recall_at_precision import recall_at_precision

NAME, PRECISION = "mrwpa", 0.9
PRODUCTS, CLASSES = "test.jsonl", "classes.json"
RECALL = "recall at precision 0.9"
ITEMS = pa.schema([
    ("item_id", pa.string()), ("group", pa.int64()), ("task", pa.string()), ("picture", pa.string()),
    ("text", pa.string()), ("label", pa.string()),
])  # fmt: skip


def load(folder: Path) -> pa.Table:
    """One row per product and task that it is labelled for; the schema tells the `classes`. Raises `UserError`."""
    classes = _classes(folder)
    rows: list[tuple[str, int, str, str, str, str]] = []
    seen: set[str] = set()
    for number, entry in read_json_lines(folder, PRODUCTS):
        where = f"{folder / PRODUCTS}: line {number}"
        name, picture, text = (field(entry, key, str, where) for key in ("id", "image", "title"))
        if name in seen or not picture:
            raise UserError(f"{where}: {'id occurs twice' if name in seen else 'field `image` is empty'}. Correct it.")
        labels = field(entry, "labels", dict, where)
        for task, label in labels.items():
            if label not in classes.get(task, ()):
                raise UserError(f"{where}: `{label}` is no class of task `{task}` in {CLASSES}. Add or correct it.")
            rows.append((f"{name} {task}", len(seen), task, f"{NAME}/{picture}", text, label))
        seen.add(name)
    if not rows:
        raise UserError(f"{folder / PRODUCTS}: labels no product. Write one product a line.")
    columns = [pa.array(values) for values in zip(*rows, strict=True)]
    found = pa.Table.from_arrays(columns, names=ITEMS.names).cast(ITEMS)
    return found.replace_schema_metadata({"classes": json.dumps(classes)})


def _classes(folder: Path) -> dict[str, list[str]]:
    found = read_json(folder, CLASSES)
    if not isinstance(found, dict) or not found:
        raise UserError(f"{folder / CLASSES}: is no mapping of tasks to classes. Write, e.g., {{'style': ['plain']}}.")
    for task, names in found.items():
        if not isinstance(names, list) or len(set(map(str, names))) < 2 or not all(isinstance(n, str) for n in names):
            raise UserError(f"{folder / CLASSES}: task `{task}` needs a list of two classes or more, by name.")
    return found


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of accuracy by task, from picture and title; detail: the probability of the likeliest class."""
    found = []
    for task, names in json.loads(items.schema.metadata[b"classes"]).items():
        mine = items.filter(pc.equal(items["task"], task))
        if mine.num_rows:
            pictures = [Picture(path) for path in mine["picture"].to_pylist()]
            picked, sure = choices(exam.classes(task, pictures, mine["text"].to_pylist(), names))
            right = picked == np.array([names.index(label) for label in mine["label"].to_pylist()])
            found.append(table(NAME, f"{task} accuracy", mine, right, sure, mine["label"].to_pylist()))
    return pa.concat_tables(found)


def metrics(outcomes: pa.Table) -> Metrics:
    """Of each task the accuracy and the recall at precision 0.9, and the mean of these recalls, in percent."""
    found = means(outcomes)
    recalls = {
        metric.replace("accuracy", RECALL): 100
        * recall_at_precision(column(cell, "outcome"), column(cell, "detail"), PRECISION)
        for (_, metric), cell in cells(outcomes).items()
    }
    return found | recalls | {RECALL: float(np.mean(list(recalls.values())))}


BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="Attribute recall at precision (MRWPA style)",
        ability="attributes of a product by photo and title",
        files=(File(PRODUCTS), File(CLASSES)),
        source=f"MRWPA is private; bring products of your own as {PRODUCTS}, a line each of "
        '{"id", "image", "title", "labels": {"color": "red"}}, and '
        f'{CLASSES}, {{"color": ["red", "blue"]}}.',
        pictures=f"{NAME}/, of the lines' `image`",
        asks="attributes",
        load=load,
        score=score,
        metrics=metrics,
        headline=RECALL,
    )
}
