"""VALSE's format: six items per file, of which one is not valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture
from training.benchmarks import valse

SOURCES = {  # file: data set, name of a picture, its folder
    "existence": ("visual7w", "v7w_{}.jpg", "visual7w"),
    "counting": ("visual7w", "v7w_{}.jpg", "visual7w"),
    "plurals": ("coco2017", "{:012d}.jpg", "coco/val2017"),
    "relations": ("coco_2017", "{:012d}.jpg", "coco/val2017"),
    "action": ("SWiG", "carrying_{}.jpg", "swig"),
    "actant": ("SWiG", "carrying_{}.jpg", "swig"),
    "coreference-hard": ("VisDial_v1.0", "VisualDialog_val2018_{:012d}.jpg", "visdial"),
    "coreference-standard": ("VisDial_v1.0", "COCO_train2014_{:012d}.jpg", "coco/train2014"),
    "foil-it": ("FOIL dataset", "COCO_val2014_{:012d}.jpg", "coco/val2014"),
}


def files(root: Path) -> None:
    (root / "valse").mkdir(parents=True, exist_ok=True)
    for name in valse.FILES:
        dataset, image, folder = next(source for start, source in SOURCES.items() if name.startswith(start))
        found = {}
        for number in range(6):
            file = image.format(number)
            picture(root / folder / file, number)
            found[f"{name}_{number}"] = {
                "dataset": dataset, "original_split": "val", "image_file": file, "linguistic_phenomena": name,
                "caption": f"There are {number + 2} spoons on the tray.", "classes": number,
                "foil": f"There are {number + 5} forks on the tray.", "classes_foil": "forks",
                "mturk": {"foil": 1, "caption": 1 if number == 3 else 2 + number % 2, "other": 0},
            }  # fmt: skip
        (root / "valse" / f"{name}.json").write_text(json.dumps(found))


FIXTURES: dict[str, Callable[[Path], None]] = {"valse": files}
