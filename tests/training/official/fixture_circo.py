"""CIRCO's format: sixteen queries with one to four right photos among eighty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.official.fixture_retrieval import picture

PHOTOS, QUERIES = 80, 16
WISHES = ("has three of them", "is seen from above", "shows no people", "is next to a river")
ASPECTS = ("cardinality", "viewpoint", "negation", "spatial_relations_background")


def right(number: int) -> list[int]:
    """COCO ids of the right photos of a query, the target first."""
    return [3 * (4 * number + step) + 12 for step in range(1 + number % 4)]


def write(root: Path) -> None:
    images = [{"id": 3 * number, "file_name": f"{3 * number:012}.jpg", "width": 12} for number in range(PHOTOS)]
    for number, image in enumerate(images):
        picture(root / "coco/unlabeled2017" / str(image["file_name"]), number)
    _json(root, "image_info_unlabeled2017", {"info": {}, "images": images})
    _json(
        root,
        "val",
        [
            {
                **_query(number),
                "target_img_id": right(number)[0],
                "gt_img_ids": right(number),
                "semantic_aspects": [ASPECTS[number % 4], ASPECTS[(number + 1) % 4]][: 1 + number % 2],
            }
            for number in range(QUERIES)
        ],
    )


def withheld(root: Path) -> None:
    """The test split, whose answers are withheld."""
    _json(root, "test", [_query(number) for number in range(3)])


def _query(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "reference_img_id": 3 * (number % 4),
        "relative_caption": f"{WISHES[number % 4]}, take {number}",
        "shared_concept": "a small boat",
    }


def _json(root: Path, name: str, content: object) -> None:
    path = root / f"circo/annotations/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


FIXTURES: dict[str, Callable[[Path], None]] = {"circo": write}
