"""SugarCrepe's and SugarCrepe++'s formats: some items of each type about eight photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.training.official.fixture_retrieval import picture
from training.benchmarks import sugarcrepe, sugarcrepe_pp

THINGS = ("kettle", "horse", "scooter", "pillow", "parrot", "guitar", "tent", "ladder")
COLOURS = ("red", "green", "white", "brown", "yellow")


def _photo(root: Path, number: int) -> str:
    name = f"{1000 + number % len(THINGS):012d}.jpg"
    if not (root / "coco/val2017" / name).is_file():
        picture(root / "coco/val2017" / name, number % len(THINGS))
    return name


def _texts(number: int) -> tuple[str, str, str]:
    thing, other = THINGS[number % len(THINGS)], THINGS[(number + 3) % len(THINGS)]
    colour = COLOURS[number % len(COLOURS)]
    caption = f"A {colour} {thing} stands in room {number}. "  # the official texts have outer blanks, too
    return caption, f"A {colour} {other} stands in room {number}.", f"In room {number} one sees a {thing}, {colour}."


def sugarcrepe_files(root: Path) -> None:
    """Numbers of items differ by type, and a key is missing, as in the official swap_obj."""
    (root / "sugarcrepe").mkdir(parents=True, exist_ok=True)
    for place, kind in enumerate(sugarcrepe.TYPES):
        found = {}
        for number in range(place, 2 * place + 4):
            caption, foil, _ = _texts(number)
            found[str(number)] = {"filename": _photo(root, number), "caption": caption, "negative_caption": foil}
        del found[str(place + 1)]
        (root / "sugarcrepe" / f"{kind}.json").write_text(json.dumps(found, indent=4))


def sugarcrepe_pp_files(root: Path) -> None:
    (root / "sugarcrepe_pp").mkdir(parents=True, exist_ok=True)
    for kind in sugarcrepe_pp.TYPES:
        found = []
        for number in range(5):
            caption, foil, second = _texts(number)
            found.append({
                "id": number, "filename": _photo(root, number), "caption": caption, "caption2": second,
                "negative_caption": foil,
            })  # fmt: skip
        (root / "sugarcrepe_pp" / f"{kind}.json").write_text(json.dumps(found))


FIXTURES: dict[str, Callable[[Path], None]] = {
    "sugarcrepe": sugarcrepe_files,
    "sugarcrepe_pp": sugarcrepe_pp_files,
}
