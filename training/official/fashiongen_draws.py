"""The draws of FashionGen's protocol of 101 candidates: made once, stored beside the annotations, read ever after.

The file is a part of the protocol: whoever has it scores the same queries. Its hash is in the record of every score.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.params import UserError
from training.official.fashiongen import VALIDATION, Product
from training.official.files import read_json

FILE = "draws.json"
DRAWS, QUERIES, NEGATIVES, SEED = 5, 1000, 100, 20221

Integers = npt.NDArray[np.int64]


def draws(folder: Path, known: Sequence[Product]) -> list[list[list[str]]]:
    """Of each draw its queries, of each query a photo of each of its 101 candidates, the right one first.

    Read from `folder`, or made and stored there. Raises `UserError` if those in it are not of these products.
    """
    path = folder / FILE
    told = [[product.name, *product.photos, product.subcategory] for product in known]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    if not path.is_file():
        _store(path, {"products": digest, "seed": SEED, "draws": [draw(known, number) for number in range(DRAWS)]})
    found = read_json(folder, FILE)
    if not isinstance(found, dict) or found.get("products") != digest or not _whole(found.get("draws"), known):
        raise UserError(f"{path}: is not of the products of {VALIDATION[0]}. Remove it, and it is made anew.")
    lines: list[list[list[str]]] = found["draws"]
    return lines


def draw(known: Sequence[Product], number: int) -> list[list[str]]:
    """One draw: a product is asked once; beside it stand others of its sub-category, then any others."""
    generator = np.random.default_rng([SEED, number])
    kinds = np.array([product.subcategory for product in known])
    found = []
    for place in _some(generator, np.arange(len(known)), QUERIES):
        same = np.flatnonzero((kinds == kinds[place]) & (np.arange(len(known)) != place))
        wrong = _some(generator, same, NEGATIVES)
        if len(wrong) < NEGATIVES:
            others = np.flatnonzero(kinds != kinds[place])
            wrong = np.concatenate([wrong, _some(generator, others, NEGATIVES - len(wrong))])
        photos = [known[one].photos for one in (place, *wrong)]
        luck = generator.random(len(photos))
        found.append([some[int(at * len(some))] for some, at in zip(photos, luck, strict=True)])
    return found


def _some(generator: np.random.Generator, places: Integers, count: int) -> Integers:
    """`count` of the places, or all of them, in random order."""
    return places[np.argsort(generator.random(len(places)), kind="stable")[:count]]


def _store(path: Path, content: object) -> None:
    partial = path.with_name(f".{FILE}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: the draws cannot be stored ({error}). Make {path.parent} writable.") from None


def _whole(found: object, known: Sequence[Product]) -> bool:
    """Whether every line has 101 photos of as many products, and no product is asked twice in a draw."""
    owner = {photo: product.name for product in known for photo in product.photos}
    try:
        lines = [[[owner[photo] for photo in line] for line in part] for part in found]  # type: ignore[attr-defined]
    except (KeyError, TypeError):
        return False
    return bool(lines) and all(
        part
        and all(len(line) == len(set(line)) == NEGATIVES + 1 for line in part)
        and len({line[0] for line in part}) == len(part)
        for part in lines
    )
