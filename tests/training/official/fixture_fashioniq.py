"""FashionIQ's format: three classes of 27 queries among 60 garments, more than R@50 looks at in either protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture

CLASSES = ("dress", "shirt", "toptee")
QUERIES, GARMENTS = 27, 60
COLOURS = ("teal", "ochre", "plum", "ivory", "rust", "olive", "coral", "navy", "mint")
CHANGES = ("has a wider collar", "is cut above the knee", "shows a printed owl")


def name(kind: str, number: int) -> str:
    return f"{kind[0].upper()}{number:09}"


def write(root: Path) -> None:
    for folder in ("captions", "image_splits"):
        (root / "fashioniq" / folder).mkdir(parents=True, exist_ok=True)
    for kind in CLASSES:
        entries = [
            {
                "candidate": name(kind, 2 * number),
                "target": name(kind, 2 * number + 1),
                "captions": [f" is {COLOURS[number % 9]} number {number}.", f"{CHANGES[number // 9]}?"],
            }
            for number in range(QUERIES)
        ]
        listed = [name(kind, number) for number in range(GARMENTS)]
        (root / f"fashioniq/captions/cap.{kind}.val.json").write_text(json.dumps(entries))
        (root / f"fashioniq/image_splits/split.{kind}.val.json").write_text(json.dumps(listed))
        for number, garment in enumerate(listed):
            picture(root / f"fashioniq/images/{garment}.jpg", 100 * CLASSES.index(kind) + number)


FIXTURES: dict[str, Callable[[Path], None]] = {"fashioniq": write}
