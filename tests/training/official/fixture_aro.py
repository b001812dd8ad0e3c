"""ARO's formats: boxes in pictures with exchanged relations and attributes, and captions to be shuffled."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.official.fixture_retrieval import picture

THINGS = ("donkey", "cart", "ferry", "bicycle", "camel", "trolley")
RELATIONS = ("above", "to the left of", "near", "wearing")  # "near" is not counted


def _vg(root: Path, name: str, file: str, entries: list[dict[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        image = f"{2300000 + number % 6}.jpg"
        picture(root / "aro/images" / image, number % 6)
        entry |= {"image_path": image, "bbox_x": number % 3, "bbox_y": 1, "bbox_w": 6, "bbox_h": 5 + number % 4}
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / file).write_text(json.dumps(entries))


def vg_relation(root: Path) -> None:
    entries = [
        {
            "relation_name": RELATIONS[number % 4], "image_id": str(number),
            "true_caption": f"the jug is {RELATIONS[number % 4]} bowl {number}",
            "false_caption": f"the bowl is {RELATIONS[number % 4]} jug {number}",
        }
        for number in range(16)
    ]  # fmt: skip
    _vg(root, "vg_relation", "visual_genome_relation.json", entries)


def vg_attribution(root: Path) -> None:
    """A pair of attributes with 26 items, which counts, and one with 4."""
    pairs = [("wet", "tall")] * 26 + [("old", "pink")] * 4
    entries = [
        {
            "attributes": list(pair), "true_caption": f"the {pair[0]} post and the {pair[1]} gate {number}",
            "false_caption": f"the {pair[1]} post and the {pair[0]} gate {number}",
        }
        for number, pair in enumerate(pairs)
    ]  # fmt: skip
    _vg(root, "vg_attribution", "visual_genome_attribution.json", entries)


def _order(root: Path, name: str, file: str, image: str, folder: str) -> None:
    """Long captions, so that hardly a shuffle is the caption itself."""
    entries = []
    for number, (one, other) in enumerate(itertools.pairwise(THINGS)):
        path = image.format(number)
        picture(root / folder / path.rpartition("/")[2], number)
        words = f"the small {one} behind a big green {other} slowly follows two old men to the quiet river"
        texts = [f"In picture {number}, {words}, says guide {guide}." for guide in range(5)]
        entries.append({"image": path, "caption": texts})
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / file).write_text(json.dumps(entries))


def coco_order(root: Path) -> None:
    _order(root, "coco_order", "coco_karpathy_test.json", "val2014/COCO_val2014_{:012d}.jpg", "coco/val2014")


def flickr30k_order(root: Path) -> None:
    _order(root, "flickr30k_order", "flickr30k_test.json", "flickr30k-images/{}.jpg", "flickr30k")


FIXTURES: dict[str, Callable[[Path], None]] = {
    "vg_relation": vg_relation,
    "vg_attribution": vg_attribution,
    "coco_order": coco_order,
    "flickr30k_order": flickr30k_order,
}
