"""RefCOCO+ in small: grey photos with two squares of different colours, either of which is told by its colour."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "yellow": (230, 220, 40),
    "pink": (240, 130, 190), "black": (10, 10, 10), "white": (245, 245, 245), "cyan": (40, 220, 220),
}  # fmt: skip
WORDS = ["the", "one", *COLOURS]
CORNERS = ((0, 0), (32, 0), (0, 32), (32, 32))
SIDE, SQUARE = 64, 32
SPLITS = {"train": range(100, 196), "val": range(1, 7), "testA": range(11, 15), "testB": range(21, 25)}


def photo(number: int) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """Pixels, and the colour and box of each of its two squares."""
    chance = np.random.default_rng(number)
    names, places = chance.permutation(list(COLOURS))[:2], chance.permutation(4)[:2]
    pixels = np.full((SIDE, SIDE, 3), 128)
    squares = []
    for name, place in zip(names.tolist(), places.tolist(), strict=True):
        left, top = CORNERS[place]
        pixels[top : top + SQUARE, left : left + SQUARE] = COLOURS[name]
        squares.append((name, [left, top, SQUARE, SQUARE]))
    noisy = pixels + chance.integers(-10, 10, pixels.shape)
    return noisy.clip(0, 255).astype(np.uint8), squares


def refcoco(root: Path) -> None:
    """Two expressions about each of 14 photos in val, testA and testB, and of 96 for training."""
    images, objects, references = [], [], []
    detections: dict[str, list[list[float]]] = {}
    expressions: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for split, numbers in SPLITS.items():
        for number in numbers:
            pixels, squares = photo(number)
            name = f"COCO_train2014_{number:012d}.jpg"
            path = root / "coco/train2014" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=95)
            images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
            detections[str(number)] = [
                [left + 1.5, top + 0.5, w - 2.0, h - 1.0, 0.9] for _, (left, top, w, h) in squares
            ]
            for place, (colour, box) in enumerate(squares):
                ids = {"ref_id": 10 * number + place, "ann_id": 100 * number + place}
                objects.append({"id": ids["ann_id"], "image_id": number, "bbox": box, "category_id": 1})
                references.append({**ids, "image_id": number, "split": split, "sent_ids": [number], "category_id": 1})
                expressions["test" if split.startswith("test") else split].append(
                    {"image": f"train2014/{name}", "text": f"the {colour} one", "ref_id": ids["ref_id"]}
                )
    folder = root / "refcoco"
    (folder / "refcoco+").mkdir(parents=True, exist_ok=True)
    for part, listed in expressions.items():
        (folder / f"refcoco+_{part}.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "refcoco+/refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    content = {"images": images, "annotations": objects, "categories": []}
    (folder / "refcoco+/instances.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "refcoco+/dets.json").write_text(json.dumps(detections), encoding="utf-8")


FIXTURES: dict[str, Callable[[Path], None]] = {"refcoco": refcoco}
