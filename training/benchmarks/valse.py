"""VALSE: a photo fits its caption better than a foil, in six linguistic phenomena and FOIL-it.

Parcalabescu et al., ACL 2022; format and rule (pairwise accuracy, strict) from Heidelberg-NLP/VALSE. Only items whose
caption at least two of three annotators chose, and not the foil, count. Three averages are in print: over the 11 files,
over the 9 columns of the paper's table (the three counting files are one), over the 7 phenomena (actions and
coreference are one each, too).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.official.contract import File, Metrics, Official
from training.official.files import field
from training.official.pairs import ACCURACY, entries, pair_items, score_pairs, shared, words
from training.official.scoring import by_slice

NAME = "valse"
CHOSEN = 2  # annotators of three
FILES = {  # each with the sha256 of its JSON without white space
    "actant-swap": "f53f0ebcec429c537860257fb93dd5c87333989829f5edc9322c498e4c02ceaf",
    "action-replacement": "03ba4331a6f991516a02adc7031d6fcb74056c8c25535c8340a5d41cc5e0096f",
    "coreference-hard": "c1fac7f3d68a60e14431d7326991cbcdbb264c252d6551087b8b3e14004f65c6",
    "coreference-standard": "6b8edcf48205169e0074a9513cb0717a72cd500dfbb2e4e080b651a263cf1492",
    "counting-adversarial": "1eb3ab4d2893c3867294a3ea11536dd4033995793792ee7169f7b6436a788a21",
    "counting-hard": "61c765106f155b3ef1811e10d38bb3e9743281ed980411bb0af8bd929a25c573",
    "counting-small-quant": "5e179b2160587d6d05ddca99db6b18b347695d1c2ec3c71493a81fd28c8679ca",
    "existence": "cd0730559562be989aa710ebacd4cfd37b0564468368c889455fdf04085b33b7",
    "foil-it": "b442af585b54aaf8a48c57daec185f81a59c154fdccb984bdca0ad2ba72f70e5",
    "plurals": "7149e1eb90395861e3456335541401aa859fc2fd45d1a1d169e14721d16dea2e",
    "relations": "02fa359dbf8ac4196ecc9a500fd81bfbde815b0656487543765faa96e8758539",
}
COUNTING = ("counting-adversarial", "counting-hard", "counting-small-quant")
MERGED = {"actions": ("actant-swap", "action-replacement"), "coreference": ("coreference-hard", "coreference-standard")}
PLACES = {  # how a picture's name begins: its folder
    "COCO_train2014_": "coco/train2014", "COCO_val2014_": "coco/val2014", "v7w_": "visual7w",
    "VisualDialog_": "visdial",
}  # fmt: skip
HEADLINE, COLUMNS, PHENOMENA = "mean of 11 files", "mean of 9 columns", "mean of 7 phenomena"


def load(folder: Path) -> pa.Table:
    """The valid items. Raises `UserError`."""
    return pair_items(row for name in FILES for row in _rows(folder, name))


def _rows(folder: Path, name: str) -> Iterator[tuple[str, ...]]:
    for key, entry in entries(folder, f"{name}.json", dict).items():
        where = f"{folder / name}.json: entry {key!r}"
        votes = field(field(entry, "mturk", dict, where), "caption", int, f"{where}, mturk")
        row = (_picture(entry, where), words(entry, "caption", where), words(entry, "foil", where))
        if votes >= CHOSEN:
            yield f"{name}/{key}", name, *row


def _picture(entry: Any, where: str) -> str:
    image, dataset = words(entry, "image_file", where), words(entry, "dataset", where)
    if folder := next((place for start, place in PLACES.items() if image.startswith(start)), None):
        return f"{folder}/{image}"
    if dataset not in ("SWiG", "coco2017", "coco_2017"):
        raise UserError(f"{where}: no folder is known for {image} of {dataset}. Fetch the official file again.")
    return f"swig/{image}" if dataset == "SWiG" else f"coco/val2017/{image}"


def metrics(outcomes: pa.Table) -> Metrics:
    """Accuracy by file, the three averages, and what the text-only control shares."""
    files = by_slice(outcomes, ACCURACY)
    return {**files, **averages(files), **shared(outcomes)}


def averages(files: Mapping[str, float]) -> Metrics:
    """The three averages of accuracies by file."""
    columns = _merged(files, {"counting": COUNTING})
    return {
        HEADLINE: float(np.mean(list(files.values()))),
        COLUMNS: float(np.mean(list(columns.values()))),
        PHENOMENA: float(np.mean(list(_merged(columns, MERGED).values()))),
    }


def _merged(found: Mapping[str, float], parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`found` with each of `parts` replaced by its mean."""
    gone = {name for names in parts.values() for name in names}
    kept = {name: value for name, value in found.items() if name not in gone}
    return {**kept, **{name: float(np.mean([found[part] for part in names])) for name, names in parts.items()}}


_ALL = (*FILES, HEADLINE, COLUMNS, PHENOMENA)
BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="VALSE",
        ability="existence, plurals, counting, relations, actions, coreference, nouns",
        files=tuple(File(f"{name}.json", digest) for name, digest in FILES.items()),
        source="11 JSON files (MIT) from the folder `data` of github.com/Heidelberg-NLP/VALSE.",
        pictures="coco/{train2014,val2014,val2017}, visual7w (v7w_*.jpg), swig (images_512), visdial (val2018)",
        load=load,
        score=functools.partial(score_pairs, NAME),
        metrics=metrics,
        headline=HEADLINE,
        chance=dict.fromkeys(_ALL, 50.0),
        constant=dict.fromkeys(_ALL, 0.0),
    )
}
