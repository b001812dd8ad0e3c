"""Statements about drawn scenes in the formats of NLVR, NLVR2 and SNLI-VE. Every label is true of its picture."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "yellow": (230, 220, 40)}
NAMES = tuple(COLOURS)
BOXES, SIDE = 3, 8


def drawn(chosen: Sequence[int]) -> Image.Image:
    """One box per colour, side by side."""
    made = np.full((SIDE, SIDE * len(chosen), 3), 200, np.uint8)
    for place, colour in enumerate(chosen):
        made[1:-1, place * SIDE + 1 : (place + 1) * SIDE - 1] = COLOURS[NAMES[colour]]
    return Image.fromarray(made)


def scenes(count: int, seed: int) -> list[tuple[list[int], int]]:
    """Colours of three boxes, and a colour that is asked for: of even scenes it is there, of odd ones it is not."""
    chance, found, asked = np.random.default_rng(seed), [], 0
    for number in range(count):
        asked = asked if number % 2 else int(chance.integers(len(NAMES)))  # pairs share a sentence
        others = [colour for colour in range(len(NAMES)) if colour != asked]
        boxes = chance.choice(others, BOXES).tolist()
        if number % 2 == 0:
            boxes[int(chance.integers(BOXES))] = asked
        found.append((boxes, asked))
    return found


def write_nlvr(root: Path, part: str, count: int, seed: int) -> None:
    """A part of NLVR: pairs of two scenes per set, each set with one sentence."""
    folder = root / "nlvr"
    folder.mkdir(parents=True, exist_ok=True)
    entries, pictures = [], []
    for number, (boxes, asked) in enumerate(scenes(count, seed)):
        name = f"{part}-{number // 2}-{number % 2}"
        words = f"there is a {NAMES[asked]} box"
        entries.append({"id": name, "sentence": words, "label": "false" if number % 2 else "true"})
        stream = io.BytesIO()
        drawn(boxes).save(stream, "PNG")
        pictures.append(stream.getvalue())
    (folder / f"nlvr-{part}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    names = [str(entry["id"]) for entry in entries]
    pq.write_table(pa.table({"id": names, "image": pictures}), folder / f"nlvr-{part}.parquet")


def write_nlvr2(root: Path, split: str, count: int, seed: int) -> None:
    """A split of NLVR2: the colour is in both pictures, or in the left one only. Two pairs to a sentence."""
    (root / "nlvr2").mkdir(parents=True, exist_ok=True)
    chance, entries, asked = np.random.default_rng(seed), [], 0
    for number in range(count):
        asked = asked if number % 2 else int(chance.integers(len(NAMES)))
        other = (asked + 1 + int(chance.integers(len(NAMES) - 1))) % len(NAMES)
        pair = f"{split}-{number // 2}-{number % 2}"
        entry = {
            "identifier": f"{pair}-0", "sentence": f"both images show a {NAMES[asked]} box",
            "label": "False" if number % 2 else "True",
        }  # fmt: skip
        entries.append(entry | ({"directory": number % 5} if split == "train" else {}))
        below = root / "nlvr2/images" / split / (str(number % 5) if split == "train" else "")
        below.mkdir(parents=True, exist_ok=True)
        for side, colour in enumerate((asked, other if number % 2 else asked)):
            drawn([colour]).save(below / f"{pair}-img{side}.png")
    (root / f"nlvr2/{split}.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def write_snli_ve(root: Path, split: str, count: int, seed: int) -> None:
    """A split of SNLI-VE: the box's colour, another colour, or what no picture tells."""
    (root / "snli_ve").mkdir(parents=True, exist_ok=True)
    (root / "flickr30k").mkdir(parents=True, exist_ok=True)
    entries, chance = [], np.random.default_rng(seed)
    for number in range(count):
        shown, other = chance.permutation(len(NAMES))[:2].tolist()
        label = ("entailment", "contradiction", "neutral")[number % 3]
        words = {"entailment": f"a {NAMES[shown]} box", "contradiction": f"a {NAMES[other]} box"}
        photograph = 1000 * seed + number
        drawn([shown]).save(root / f"flickr30k/{photograph}.jpg", quality=95)
        entries.append({
            "Flickr30K_ID": str(photograph), "pairID": f"{photograph}.jpg#0r1", "gold_label": label,
            "sentence1": f"somebody painted a {NAMES[shown]} box", "sentence2": words.get(label, "a box for a friend"),
        })  # fmt: skip
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (root / f"snli_ve/snli_ve_{split}.jsonl").write_text(lines)


def nlvr(root: Path) -> None:
    write_nlvr(root, "dev", 24, 1)


def nlvr2(root: Path) -> None:
    write_nlvr2(root, "dev", 24, 1)
    write_nlvr2(root, "test1", 12, 2)


def snli_ve(root: Path) -> None:
    write_snli_ve(root, "dev", 12, 1)
    write_snli_ve(root, "test", 24, 2)


FIXTURES: dict[str, Callable[[Path], None]] = {"nlvr": nlvr, "nlvr2": nlvr2, "snli_ve": snli_ve}
