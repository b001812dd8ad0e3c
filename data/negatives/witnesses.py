"""Witnesses that a negative is, after all, true of its product. Each speaks for itself and says why.

ontology: the edit only says the same again or less (a synonym, a more general word, a word left out, parts joined by
    "and" exchanged), or the product has a value beside which nothing is certainly false ("Multi", "Unisex").
attributes: an attribute or another caption of the product, or of one with the same title, says what was put in.
duplicates: so does a product whose photo is the same: by key or as a perceptual duplicate (photos.py).
nearest_captions: another product's caption says what the negative says, nearly word for word, and its photo looks like
    this one.

They share no list, no rule and no group with the generator's filters (data/negatives/filters.py) and read text as plain
words. What none of them can see: what only the photo shows (a buckle, a print, a second garment), words that occur in
no attribute, no caption and no line of meanings.py, and exchanges that happen to fit the photo. For those there are a
person's labels (labels.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.negatives.meanings import UNSPECIFIC, Claim, Phrase, claim, implications, implied, same_parts, says, stems
from data.negatives.nearest import Captions
from data.negatives.photos import Photos
from data.schema import COLUMNS
from data.text import title_key

Row = Mapping[str, Any]
WITNESSES = ("ontology", "attributes", "duplicates", "nearest_captions")
TEXTS = ("title", "derived_caption")
ATTRIBUTES = tuple(column.name for column in COLUMNS if column.name not in ("id", *TEXTS))
LOOK_ALIKE = 6.0  # difference (0-255, photos.py) up to which two photos could carry one caption; judged by eye


class Witnesses:
    """All that is known of a catalog, ready to be asked about negatives.

    Args:
        products: rows of the dataset's `products.parquet`, all splits.
        images: the dataset's `images.parquet`; without it the witnesses know photos by their keys alone.
    """

    def __init__(self, products: Sequence[Row], images: Path | None = None) -> None:
        self._rows = {row["row_id"]: row for row in products}
        self._same_title = _index(products, lambda row: title_key(row["title"]))
        self._same_photo = _index(products, lambda row: row["image_key"])
        self._captions = Captions((row["row_id"], row[name]) for row in products for name in TEXTS if row[name])
        self._values = {name: {stems(str(row[name])) for row in products if row.get(name)} for name in UNSPECIFIC}
        self._photos = Photos(images, self._same_photo)

    def ask(self, negatives: Iterable[Row]) -> list[dict[str, str]]:
        """{witness: why it holds the negative for true} of each negative, in order; empty where none speaks."""
        items = list(negatives)
        claims = [claim(item["caption"], item["negative"]) for item in items]
        texts = self._captions.nearest([item["negative"] for item in items])
        near = [
            sorted({row_id for text, holders in found if _says_it(text, item, what) for row_id in holders})
            for item, what, found in zip(items, claims, texts, strict=True)
        ]
        return [self._hear(*each) for each in zip(items, claims, near, strict=True)]

    def _hear(self, item: Row, what: Claim, near: Sequence[str]) -> dict[str, str]:
        own = self._rows[item["row_id"]]
        titled = self._of(self._same_title, title_key(own["title"]))
        photos = self._photos.same(own["image_key"])
        pictured = [row for key in photos for row in self._of(self._same_photo, key) if row is not own]
        related = {row["row_id"] for row in (own, *titled, *pictured)}
        others = [self._rows[name] for name in near if name not in related]
        distances = self._photos.distances(own["image_key"], [row["image_key"] for row in others])
        closest = int(np.argmin(distances)) if others else -1
        alike = bool(others) and distances[closest] <= LOOK_ALIKE
        answers = {
            "ontology": self._ontology(item, what, own),
            "attributes": _stated(item, what, [own, *titled]),
            "duplicates": _stated(item, what, pictured),
            "nearest_captions": f"looks like {_name(others[closest])}" if alike else None,
        }
        return {name: why for name, why in answers.items() if why}

    def _ontology(self, item: Row, what: Claim, own: Row) -> str | None:
        if not what.put_in and not what.taken_out:
            return "says the same in another spelling"
        if what.moved:
            return "the parts may come in any order" if same_parts(item["caption"], item["negative"]) else None
        sources = {meaning: text for text in _texts(own, item["caption"]) for meaning in implications(text)}
        for phrase in what.taken_out:
            sources |= dict.fromkeys(implied(phrase) | implications(phrase), phrase)
        if not what.put_in:
            return "leaves words out and adds none"
        if all(phrase in sources for phrase in what.put_in):
            first = what.put_in[0]
            return f'"{" ".join(first)}" follows from "{" ".join(sources[first])}"'
        for name, value in UNSPECIFIC.items():
            if stems(own.get(name) or "") == stems(value) and not self._values[name].isdisjoint(what.put_in):
                return f"{name} is {own[name]}, beside which nothing is certainly false"
        return None

    def _of(self, index: Mapping[str, list[str]], key: str | None) -> list[Row]:
        return [self._rows[name] for name in index.get(key, ())] if key else []


def _index(products: Iterable[Row], key: Callable[[Row], str | None]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for row in products:
        value = key(row)
        if value:
            found[value].append(row["row_id"])
    return found


def _texts(row: Row, but: str) -> Iterator[Phrase]:
    """The attributes of a product and its captions, except the one that was edited."""
    edited = stems(but)
    yield from (stems(str(row[name])) for name in ATTRIBUTES if row.get(name))
    yield from (text for name in TEXTS if row[name] and (text := stems(row[name])) != edited)


def _stated(item: Row, what: Claim, rows: Sequence[Row]) -> str | None:
    """Which of `rows` says, in an attribute or a caption, what was put in; a caption must say all of a moved order."""
    negative = stems(item["negative"])
    for row in rows:
        texts = list(_texts(row, item["caption"]))
        if negative in texts:
            return f"is a caption of {_name(row)}"
        if what.put_in and not what.moved and all(any(says(t, phrase) for t in texts) for phrase in what.put_in):
            return f"{' '.join(what.put_in[0])} is said of {_name(row)}"
    return None


def _says_it(text: Phrase, item: Row, what: Claim) -> bool:
    """Whether a caption near the negative makes its claim: says what was put in and not what was taken out."""
    if what.moved or not what.put_in:
        return text == stems(item["negative"])
    return all(says(text, phrase) for phrase in what.put_in) and not any(says(text, gone) for gone in what.taken_out)


def _name(row: Row) -> str:
    return f'{row["row_id"]} ("{row["title"] or row["derived_caption"]}")'
