"""CIRR's format: ten sets of six photos and three changes in each, enough photos for R@50 to mean something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.official.fixture_retrieval import picture

SETS, SIZE, PAIRS = 10, 6, 3
CHANGES = ("put a {} on the left", "the {} is larger and asleep", "without the {}, in the rain")
THINGS = ("fox", "canoe", "cello", "loaf", "tram", "heron", "quilt", "globe", "pear", "sledge")


def _members(split: str, family: int) -> list[str]:
    return [f"{split}-{family}-{number}-img0" for number in range(SIZE)]


def write(root: Path) -> None:
    _write(root, "val", "dev")


def test1(root: Path) -> None:
    """The split whose answers are withheld."""
    _write(root, "test1", "test1")


def _write(root: Path, split: str, folder: str) -> None:
    entries, paths = [], {}
    for family, thing in enumerate(THINGS):
        members = _members(folder, family)
        paths |= {name: f"./{folder}/{name}.png" for name in members}
        for pair in range(PAIRS):
            made: dict[str, Any] = {
                "pairid": 100 * family + pair,
                "reference": members[pair],
                "caption": CHANGES[pair].format(thing),
                "img_set": {"id": family, "members": members, "reference_rank": pair},
            }
            if split == "val":
                made |= {"target_hard": members[pair + 1], "target_soft": {members[pair + 1]: 1.0}}
            entries.append(made)
    for number, path in enumerate(paths.values()):
        picture(root / "cirr" / path, number)
    for name, content in ((f"captions/cap.rc2.{split}.json", entries), (f"image_splits/split.rc2.{split}.json", paths)):
        (root / "cirr" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cirr" / name).write_text(json.dumps(content))


FIXTURES: dict[str, Callable[[Path], None]] = {"cirr": write}
