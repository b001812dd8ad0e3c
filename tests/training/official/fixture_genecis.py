"""GeneCIS's format: six queries a task, boxes in Visual Genome's two archives, whole photos of COCO."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.official.fixture_retrieval import picture

QUERIES = 6
CANDIDATES = {"attribute": 10, "object": 15}
CONDITIONS = ("striped", "wooden", "wet", "kite", "harbour", "lamp")


def write(root: Path) -> None:
    (root / "genecis").mkdir(parents=True, exist_ok=True)
    for place, task in enumerate(("focus_attribute", "change_attribute", "focus_object", "change_object")):
        kind = task.split("_")[1]
        entries = []
        for number in range(QUERIES):
            first = 100 * place + (CANDIDATES[kind] + 1) * number
            shown = [_picture(root, kind, first + step) for step in range(CANDIDATES[kind] + 1)]
            entries.append(
                {"condition": CONDITIONS[number], "reference": shown[0], "target": shown[1], "gallery": shown[2:]}
            )
        (root / f"genecis/{task}.json").write_text(json.dumps(entries))


def _picture(root: Path, kind: str, number: int) -> dict[str, Any]:
    if kind == "object":
        picture(root / f"coco/val2017/{number:012}.jpg", number)
        return {"val_image_id": number}
    picture(root / f"vg/{('VG_100K', 'VG_100K_2')[number % 2]}/{number}.jpg", number)
    return {"image_id": number, "instance_bbox": [4, 5, 3 + number % 4, 4]}


FIXTURES: dict[str, Callable[[Path], None]] = {"genecis": write}
