"""UPMC-Food101 in the format of MMBT: 101 dishes, one test page and two others of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture

NAME, DISHES = "upmc_food101", [f"dish_{number:03d}" for number in range(101)]


def food101(root: Path) -> None:
    (root / NAME).mkdir(parents=True, exist_ok=True)
    for part, pages in (("test", 1), ("train", 2)):
        lines = []
        for number, dish in enumerate(DISHES):
            for page in range(pages):
                image = f"IMG/{part}/{dish}/{dish}_{page}.png"
                text = f"how to cook {dish.replace('_', ' ')} page {page}"
                lines.append({"id": f"{part}{dish}_{page}", "label": dish, "text": text, "img": image})
                picture(root / NAME / image, 3 * number + page, size=4)
        (root / NAME / f"{part}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


FIXTURES: dict[str, Callable[[Path], None]] = {NAME: food101}
