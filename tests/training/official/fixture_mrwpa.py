"""Sixteen products with colours, patterns and styles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture

CLASSES = {"color": ["amber", "teal", "plum"], "pattern": ["plain", "dotted"], "style": ["loose", "slim", "boxy"]}


def mrwpa(root: Path) -> None:
    """Every second product has no style."""
    (root / "mrwpa").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(16):
        labels = {task: names[number % len(names)] for task, names in CLASSES.items()}
        if number % 2:
            del labels["style"]
        picture(root / "mrwpa" / f"photos/{number}.png", number)
        lines.append({
            "id": f"m{number}", "image": f"photos/{number}.png", "title": f"A {labels['color']} thing no. {number}",
            "labels": labels,
        })  # fmt: skip
    (root / "mrwpa" / "test.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (root / "mrwpa" / "classes.json").write_text(json.dumps(CLASSES))


FIXTURES: dict[str, Callable[[Path], None]] = {"mrwpa": mrwpa}
