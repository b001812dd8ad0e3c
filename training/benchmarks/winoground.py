"""Winoground: two photos and two captions of the same words in another order.

Thrush et al., CVPR 2022. With s(c, i) the score of caption c and photo i:
    text   s(c0, i0) > s(c1, i0) and s(c1, i1) > s(c0, i1)
    image  s(c0, i0) > s(c0, i1) and s(c1, i1) > s(c1, i0)
    group  both
A scorer that sees the captions alone prefers one of them for both photos, so its scores are 0 by construction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.official.files import read_json_lines
from training.official.pairs import words
from training.official.scoring import by_slice, means, table
from training.ranking import TIE

NAME, FILE = "winoground", "examples.jsonl"
FIELDS = ("image_0", "image_1", "caption_0", "caption_1")
TAG = "collapsed_tag"  # what the captions swap: an object, a relation, both
SCHEMA = pa.schema(
    {"item_id": pa.string(), "group": pa.int64(), "slice": pa.string(), **dict.fromkeys(FIELDS, pa.string())}
)


def load(folder: Path) -> pa.Table:
    """All items. Raises `UserError`."""
    rows = []
    for number, entry in read_json_lines(folder, FILE):
        where = f"{folder / FILE}: line {number}"
        values = {name: words(entry, name, where) for name in FIELDS}
        rows.append({"item_id": f"{number:04}", "group": number, "slice": str(entry.get(TAG, "")), **values})
    if not rows:
        raise UserError(f"{folder / FILE}: has no items. Fetch the official file again.")
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of `text`, `image` and `group`; detail: the smallest of the differences that must be positive."""
    images = [[_picture(name) for name in items[f"image_{side}"].to_pylist()] for side in (0, 1)]
    captions = [items[f"caption_{side}"].to_pylist() for side in (0, 1)]
    s = {(c, i): exam.match(images[i], captions[c]).astype(np.float64) for c in (0, 1) for i in (0, 1)}
    text = np.minimum(s[0, 0] - s[1, 0], s[1, 1] - s[0, 1])
    image = np.minimum(s[0, 0] - s[0, 1], s[1, 1] - s[1, 0])
    margins = {"text": text, "image": image, "group": np.minimum(text, image)}
    slices = items["slice"].to_pylist()
    return pa.concat_tables([table(NAME, name, items, m > TIE, m, slices) for name, m in margins.items()])


def _picture(name: str) -> Picture:
    return Picture(f"winoground/images/{name}" + ("" if Path(name).suffix else ".png"))


def metrics(outcomes: pa.Table) -> Metrics:
    """The three scores, and each by what the captions swap."""
    found = means(outcomes)
    parts = {name: by_slice(outcomes, name) for name in found}
    return {**found, **{f"{name} {tag}": value for name in parts for tag, value in parts[name].items() if tag}}


BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="Winoground",
        ability="word order, told by two photos",
        files=(File(FILE),),
        source="examples.jsonl of the gated data set facebook/winoground (research only; do not pass its captions on).",
        pictures="winoground/images (of the same data set)",
        load=load,
        score=score,
        metrics=metrics,
        headline="group",
        chance={"text": 25.0, "image": 25.0, "group": 100 / 6},
        constant={"text": 0.0, "image": 0.0, "group": 0.0},
    )
}
