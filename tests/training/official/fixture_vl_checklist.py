"""VL-CheckList's format: two items in each of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture
from training.benchmarks import vl_checklist

PICTURES = {"vg": "VG_100K/{}.jpg", "swig": "filming_{}.jpg", "hake": "openimages/{}.jpg"}


def files(root: Path) -> None:
    for place, (name, path) in enumerate(vl_checklist.FILES.items()):
        folder = vl_checklist.ROOTS[name.rpartition("/")[2].partition("_")[0]]
        texts = 3 if "swig" in name and name.startswith("Object") else 1
        found = []
        for number in range(2):
            image = PICTURES[folder].format(number)
            picture(root / folder / image, number)
            found.append([image, {
                side: [f"{word} of barrel {place} {number} {variant}" for variant in range(texts)]
                for side, word in (("POS", "left side"), ("NEG", "top"))
            }])  # fmt: skip
        file = root / "vl_checklist" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))


FIXTURES: dict[str, Callable[[Path], None]] = {"vl_checklist": files}
