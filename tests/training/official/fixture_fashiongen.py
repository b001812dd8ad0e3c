"""Products in the format of FashionViL: 48 categories and 121 sub-categories, of which the first has 26 products."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture

CATEGORIES, SUBCATEGORIES, MORE = 48, 121, 25
COLOURS, KINDS = ("amber", "teal", "ivory", "plum", "slate", "coral"), ("smock", "poncho", "clog", "stole", "gilet")


def _products(folder: Path, pictures: Path, path: str, count: int, first: int) -> None:
    """Product i is of sub-category i, or of the first; every third has two photos."""
    entries = []
    for number in range(count):
        subcategory = number if number < SUBCATEGORIES else 0
        photos = [f"{first + number}_{photo}.png" for photo in range(1 + (number % 3 == 0))]
        for photo, file in enumerate(photos):
            picture(pictures / file, 2 * (first + number) + photo, size=6)
        title = f"{COLOURS[number % 6]} {KINDS[number % 5]} {first + number}"
        entries.append({
            "id": first + number, "images": photos, "title": title, "description": f"A {title} with a hem.",
            "category_id": subcategory % CATEGORIES, "subcategory_id": subcategory, "attributes_id": [number % 7],
        })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(json.dumps(entries))


def _write(name: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        pictures = root / "fashiongen" / "images"
        _products(root / name, pictures, "val_info.json", SUBCATEGORIES + MORE, 0)
        if name != "fashiongen":
            _products(root / name, pictures, "train_info.json", SUBCATEGORIES, 1000)

    return write


FIXTURES = {name: _write(name) for name in ("fashiongen", "fashiongen_category", "fashiongen_subcategory")}
