"""The composed suite: this photo, but "in red". The answers are test photos that differ in exactly that one attribute.

Compared are the attributes one can see: article type, colour, gender and usage. The season is a date of the shop's
calendar, so it neither makes two products differ nor is it ever asked for. A product of which one of them is unknown is
neither asked about nor an answer, unless its whole catalog lacks the attribute: then the others are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.pictures import FAINT, INK, Line, Tile, draw_grid, load_photos
from data.stage import Run
from data.suites_items import Row, balance, item_id

CHANGES = {
    "article_type": "as {}", "base_colour": "in {}", "gender": "for {}", "usage": "for {} wear",
}  # fmt: skip
UNISEX = {"unisex": "men and women"}  # as derived captions say it
COMPOSED = pa.schema([
    ("item_id", pa.string()), ("row_id", pa.string()), ("image_key", pa.string()), ("group", pa.int64()),
    ("changed", pa.string()), ("value", pa.string()), ("condition", pa.string()), ("targets", pa.list_(pa.string())),
])  # fmt: skip
Key = tuple[Any, ...]
PER_CHANGE = 3  # questions per changed attribute on the page of examples


def composed(test: Sequence[Mapping[str, Any]], most: int) -> list[Row]:
    """At most `most` questions per changed attribute, and of one product at most one for each; in the rows' order.

    An item's `targets` are the image keys, sorted, of all test products that share every attribute of the query's
    product but `changed`, and have `value` there; the query's own photo is never among them.
    """
    photos: dict[Key, set[str]] = defaultdict(set)
    values: dict[tuple[str, Key], set[str]] = defaultdict(set)  # which values of an attribute occur with the same rest
    lacking = _lacking(test)
    keys = [_key(row, lacking[row["catalog"]]) for row in test]
    for row, key in zip(test, keys, strict=True):
        if key:
            photos[key].add(row["image_key"])
            for place, name in enumerate(CHANGES):
                values[name, key[:place] + key[place + 1 :]].add(key[place])
    items = [
        min(asked, key=lambda item: str(item["item_id"]))
        for row, key in zip(test, keys, strict=True) if key
        for place, name in enumerate(CHANGES)
        if (asked := list(_questions(row, key, place, values[name, key[:place] + key[place + 1 :]], photos)))
    ]  # fmt: skip
    return balance(items, most, by="changed")


def _questions(
    row: Mapping[str, Any], key: Key, place: int, values: Iterable[str | None], photos: Mapping[Key, set[str]]
) -> Iterator[Row]:
    """Every question about a product that changes the attribute at `place`."""
    name = tuple(CHANGES)[place]
    for value in values if key[place] is not None else ():
        targets = photos[(*key[:place], value, *key[place + 1 :])] - {row["image_key"]}
        if value is not None and value != key[place] and targets:
            yield {
                "item_id": item_id(row["row_id"], "composed", name, value), "row_id": row["row_id"],
                "image_key": row["image_key"], "group": row["group"], "changed": name, "value": value,
                "condition": condition(name, value), "targets": sorted(targets),
            }  # fmt: skip


def condition(name: str, value: str) -> str:
    """What a person would say.

    >>> condition("gender", "Unisex")
    'for men and women'
    """
    word = value.lower()
    return CHANGES[name].format(UNISEX.get(word, word) if name == "gender" else word)


def _lacking(rows: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """{catalog: the compared attributes that none of its products has}."""
    had: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        had[row["catalog"]].update(name for name in CHANGES if row[name] is not None)
    return {catalog: frozenset(CHANGES) - names for catalog, names in had.items()}


def _key(row: Mapping[str, Any], lacking: frozenset[str]) -> Key:
    """A product's compared attributes, or () if one is unknown. Those that its catalog lacks are None."""
    return () if any(row[name] is None and name not in lacking for name in CHANGES) else tuple(map(row.get, CHANGES))


def change_table(items: Iterable[Row]) -> list[Row]:
    """Rows {changed, items, families, targets_per_item}."""
    held: dict[str, list[Row]] = defaultdict(list)
    for item in items:
        held[item["changed"]].append(item)
    return [
        {"changed": name, "items": len(found), "families": len({item["group"] for item in found}),
         "targets_per_item": round(sum(len(item["targets"]) for item in found) / len(found), 2)}
        for name in CHANGES if (found := held[name])
    ]  # fmt: skip


def check_composed(run: Run, items: Iterable[Row], rows: Iterable[Mapping[str, Any]]) -> None:
    """Every question has an answer, no answer is the question's own photo, and each is right by the catalog."""
    shown: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        shown[row["image_key"]].append(row)
    products = {row["row_id"]: row for found in shown.values() for row in found}
    wrong = [item["item_id"] for item in items if not _sound(item, products[item["row_id"]], shown)]
    run.check(
        "composed_answers_are_right", not wrong, severity="critical", count=len(wrong), examples=wrong,
        description="Every composed item has an answer; each answer is another photo, of a test product that differs "
        "from the query's in the named attribute only.",
    )  # fmt: skip


def _sound(item: Row, query: Mapping[str, Any], shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    wanted = {name: query[name] for name in CHANGES} | {item["changed"]: item["value"], "split": "test"}
    return (
        bool(item["targets"])
        and query[item["changed"]] != item["value"]
        and item["image_key"] not in item["targets"]
        and all(
            any(all(row[name] == value for name, value in wanted.items()) for row in shown[target])
            for target in item["targets"]
        )
    )


def draw_composed(path: Path, items: Sequence[Row], images: Path) -> None:
    """The page of examples: a fixed choice of questions per changed attribute, each photo beside one right answer."""
    chosen: list[Row] = []
    for name in CHANGES:
        chosen += sorted((i for i in items if i["changed"] == name), key=lambda i: str(i["item_id"]))[:PER_CHANGE]
    photos = load_photos(images, [key for item in chosen for key in (item["image_key"], item["targets"][0])])
    tiles = [tile for item in chosen for tile in _pair(item, photos)]
    draw_grid(
        path, tiles, columns=2 * PER_CHANGE, title="Composed suite", tile=(190, 262), photo=(150, 200),
        subtitle="a photo and what shall be different; to its right, one of the right answers",
    )  # fmt: skip


def _pair(item: Row, photos: Mapping[str, bytes]) -> tuple[Tile, Tile]:
    answers = len(item["targets"])
    return (
        Tile(photos[item["image_key"]], [Line(f"the same, {item['condition']}", INK, 14, 2)]),
        Tile(photos[item["targets"][0]], [Line(f"1 of {answers} answers", FAINT, 13, 1)]),
    )
