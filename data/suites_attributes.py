"""The attributes suite: what is this product? One item per test product and task, asked of its photo and its title.

A task is a column of the catalog; its classes are the values that enough products of the train split have. A product
whose value is rarer, or absent, is not asked about: no model could have learnt the answer. Beside each answer stands
the commonest class of the train split, which is what one may say without looking.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.pictures import FAINT, INK, Line, Tile, draw_grid, load_photos
from data.suites_items import Row, item_id
from data.text import clean

TASKS = ("article_type", "base_colour", "gender", "season", "usage")
LEAST = 10  # products of the train split that make a value a class
ATTRIBUTES = pa.schema([
    ("item_id", pa.string()), ("row_id", pa.string()), ("image_key", pa.string()), ("group", pa.int64()),
    ("title", pa.string()), ("task", pa.string()), ("label", pa.string()),
    ("commonest", pa.string()),
])  # fmt: skip
SHOWN, COLUMNS = 12, 3  # products on the page of examples


def classes(train: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """{task: its classes, sorted}, from the rows of the train split."""
    return {
        task: sorted(value for value, count in found.items() if count >= LEAST)
        for task, found in _counts(train).items()
    }


def commonest(train: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """{task: the value that most products of the train split have}, of equally common ones the first by name."""
    return {task: min(found, key=lambda v: (-found[v], v)) for task, found in _counts(train).items() if found}


def _counts(train: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {task: Counter() for task in TASKS}
    for row in train:
        for task in TASKS:
            if row[task] is not None:
                counts[task][row[task]] += 1
    return counts


def attributes(
    test: Iterable[Mapping[str, Any]], known: Mapping[str, Sequence[str]], usual: Mapping[str, str]
) -> list[Row]:
    """One item per product and task, in the rows' order; `title` is empty where there is none.

    `known` are the `classes` and `usual` the `commonest` values of the train split.

    A task with one class asks nothing, so it has no items.
    """
    answers = {task: frozenset(values) for task, values in known.items() if len(values) > 1}
    return [
        {
            "item_id": item_id(row["row_id"], "attribute", task), "row_id": row["row_id"],
            "image_key": row["image_key"], "group": row["group"], "title": clean(row["title"] or ""),
            "task": task, "label": row[task], "commonest": usual[task],
        }
        for row in test for task, values in answers.items() if row[task] in values
    ]  # fmt: skip


def task_table(items: Iterable[Row], known: Mapping[str, Sequence[str]]) -> list[Row]:
    """Rows {task, classes, items, commonest, always_guessing_it}: the score to beat without looking."""
    held: dict[str, list[Row]] = defaultdict(list)
    for item in items:
        held[item["task"]].append(item)
    return [
        {"task": task, "classes": len(known[task]), "items": len(found), "commonest": found[0]["commonest"],
         "always_guessing_it": round(sum(item["label"] == item["commonest"] for item in found) / len(found), 4)}
        for task, found in held.items()
    ]  # fmt: skip


def draw_attributes(path: Path, items: Iterable[Row], images: Path) -> None:
    """The page of examples: a fixed choice of products with every answer."""
    by_product: dict[str, list[Row]] = defaultdict(list)
    for item in items:
        by_product[item["row_id"]].append(item)
    chosen = sorted(by_product, key=lambda row_id: hashlib.sha256(row_id.encode()).hexdigest())[:SHOWN]
    photos = load_photos(images, [by_product[row_id][0]["image_key"] for row_id in chosen])
    tiles = [_tile(photos, by_product[row_id]) for row_id in chosen]
    draw_grid(
        path, tiles, columns=COLUMNS, title="Attributes suite", tile=(420, 236), photo=(150, 200), beside=True,
        subtitle="a product's photo and title, and the answer of each task",
    )  # fmt: skip


def _tile(photos: Mapping[str, bytes], asked: Sequence[Row]) -> Tile:
    answers = [Line(f"{item['task'].replace('_', ' ')}:  {item['label']}", FAINT, 13, 1) for item in asked]
    return Tile(photos[asked[0]["image_key"]], [Line(asked[0]["title"], INK, 14, 3), *answers])
