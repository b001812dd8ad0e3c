"""Winoground's format: fourteen items, captions of the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture

PAIRS = ("spoon", "ladle"), ("crow", "gull"), ("coat", "hat"), ("pear", "plum"), ("drum", "flute")


def files(root: Path) -> None:
    (root / "winoground").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(14):
        one, other = PAIRS[number % len(PAIRS)]
        for side in (0, 1):
            picture(root / f"winoground/images/ex_{number}_img_{side}.png", 2 * number + side)
        lines.append({
            "id": number, "image_0": f"ex_{number}_img_0", "image_1": f"ex_{number}_img_1",
            "caption_0": f"the {one} under the {other} at noon, {number}",
            "caption_1": f"the {other} under the {one} at noon, {number}",
            "tag": "Noun", "collapsed_tag": "Object" if number % 2 else "Relation",
        })  # fmt: skip
    (root / "winoground/examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


FIXTURES: dict[str, Callable[[Path], None]] = {"winoground": files}
