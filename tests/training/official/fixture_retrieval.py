"""Captions and pictures in the formats of COCO and Flickr30k: twelve pictures, five captions each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

THINGS = ("kite", "lamp", "boat", "drum", "ladder", "violin", "teapot", "tractor", "goose", "anchor", "cactus", "sled")
WORDS = ("A {} by itself.", "One {} in the light", "Somebody left a {} here.", "A {}, seen from the side.", "The {}")


def picture(path: Path, number: int, size: int = 12) -> None:
    """A small picture whose colours depend on its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def _json(root: Path, name: str, path: str, image: str, below: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    entries = []
    for number, thing in enumerate(THINGS):
        file = image.format(number)
        entries.append({"image": file, "caption": [words.format(thing) for words in WORDS]})
        picture(root / below / file.rsplit("/", 1)[-1], number)
    (root / name / path).write_text(json.dumps(entries))


def coco(root: Path) -> None:
    _json(
        root, "coco_retrieval", "coco_karpathy_test.json", "val2014/COCO_val2014_{:012d}.jpg", "coco/val2014"
    )  # fmt: skip


def flickr30k(root: Path) -> None:
    _json(root, "flickr30k_retrieval", "flickr30k_test.json", "flickr30k-images/{}.jpg", "flickr30k")


def multi30k(root: Path) -> None:
    """Flickr30k once more, in the files of Multi30K."""
    folder = root / "flickr30k_retrieval"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_2016_images.txt").write_text("".join(f"{number}.jpg\n" for number in range(len(THINGS))))
    for number, words in enumerate(WORDS, start=1):
        (folder / f"test_2016.{number}.en").write_text("".join(f"{words.format(thing)}\n" for thing in THINGS))


FIXTURES: dict[str, Callable[[Path], None]] = {"coco_retrieval": coco, "flickr30k_retrieval": flickr30k}
