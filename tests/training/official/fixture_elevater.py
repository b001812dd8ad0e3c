"""Sets in the format of ELEVATER: indices, and class names and prompts in the format of CLIP_benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import THINGS, picture

FOLDER = "elevater"
NAMES = {
    "cifar10": list(THINGS[:10]),
    "pets": ["collie", "manx"],
    "hateful-memes": ["kind words", "cruel words"],
    "voc2007_multilabel": list(THINGS[:3]),
}
PROMPTS = {name: ["a photo of a {c}.", "the {c}, seen by day"] for name in NAMES}
INDICES = {
    "cifar-10": [f"{number % 10}" for number in range(20)],
    "oxford-iiit-pets": ["0"] * 10 + ["1"],
    "hateful-memes": ["0", "1", "1", "0", "1", "0", "0"],
}
VOC = ["0", "1,2", "0,2", "1", "2", "0,1"]


def _index(root: Path, name: str, labels: list[str]) -> None:
    lines = []
    for number, numbers in enumerate(labels):
        lines.append(f"test.zip@{number % 2}/no {number}.png {numbers}\n")
        picture(root / FOLDER / name / "test" / str(number % 2) / f"no {number}.png", number, size=6)
    (root / FOLDER / name / "test.txt").write_text("".join(lines))


def elevater(root: Path) -> None:
    for name, labels in INDICES.items():
        _index(root, name, labels)
    (root / FOLDER / "en_classnames.json").write_text(json.dumps(NAMES))
    (root / FOLDER / "en_zeroshot_classification_templates.json").write_text(json.dumps(PROMPTS))


def voc(root: Path) -> None:
    """The set of several labels: its metric has no zero, so it is not a part of what is audited."""
    _index(root, "voc-2007-classification", VOC)


FIXTURES: dict[str, Callable[[Path], None]] = {FOLDER: elevater}
