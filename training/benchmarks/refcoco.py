"""RefCOCO+ (Yu et al. 2016, arXiv 1608.00272; UNC split): which object of a photo an expression without words of place
is about. Weakly supervised, as ALBEF has it: nothing is trained on boxes.

A model gives a map over the photo, which is resized to it (bicubic); of the boxes that a detector found, the one with
the greatest  sum of the map inside / area^0.5  is the answer, and right if its IoU with the object's is at least 0.5.
Splits val, testA (people) and testB (other objects). Pictures `coco/train2014`.

House rule: of boxes that score alike all must be right, and where no box scores above 0 nothing was found. The official
code takes the first of equal boxes, and where no box scores above 0 the answer of the sample before.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.official import files, scoring
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.ranking import TIE

METRIC = "grounding"
SPLITS = ("val", "testA", "testB")
EXPRESSIONS = ("refcoco+_val.json", "refcoco+_test.json")
TRAINING = "refcoco+_train.json"
REFERENCES, INSTANCES, DETECTIONS = (f"refcoco+/{name}" for name in ("refs(unc).p", "instances.json", "dets.json"))
LEAST_IOU = 0.5
BLOCK = 256  # expressions whose maps are asked for at once

Box = Sequence[float]  # left, top, width, height in pixels
Floats = npt.NDArray[np.float64]


def load(folder: Path) -> pa.Table:
    """One row per expression of val, testA and testB.

    Columns: `item_id` "reference:number of the expression", `group` the photo's number, picture, text, split, width and
    height of the photo, target (the object's box), boxes (the detector's).
    """
    photos, objects = _instances(folder)
    references, detections = _references(folder), _detections(folder)
    rows: list[dict[str, Any]] = []
    seen: Counter[int] = Counter()
    for name in EXPRESSIONS:
        for i, entry in enumerate(_list(files.read_json(folder, name), folder / name)):
            where = f"{folder / name}: entry {i}"
            number = files.field(entry, "ref_id", int, where)
            reference = _known(references, number, "ref_id", where, REFERENCES)
            photo = _known(photos, reference["image_id"], "image_id", where, INSTANCES)
            picture = files.field(entry, "image", str, where)
            if Path(picture).name != photo["file_name"]:
                raise UserError(
                    f"{where}: `image` is {picture}, but reference {number} is about {photo['file_name']}. Take the "
                    "expressions and the references of one release."
                )
            if reference["split"] not in SPLITS:
                raise UserError(f"{where}: reference {number} is of the split `{reference['split']}`. {_AGAIN}")
            rows.append({
                "item_id": f"{number}:{seen[number]}", "group": reference["image_id"],
                "picture": f"coco/train2014/{photo['file_name']}", "text": files.field(entry, "text", str, where),
                "split": reference["split"], "width": photo["width"], "height": photo["height"],
                "target": _known(objects, reference["ann_id"], "ann_id", where, INSTANCES),
                "boxes": _known(detections, reference["image_id"], "image_id", where, DETECTIONS),
            })  # fmt: skip
            seen[number] += 1
    return pa.Table.from_pylist(rows)


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Whether the best box is the object. Detail: how much it scored above the best other one, on a map with
    maximum 1."""
    rows = items.drop_columns(["split"]).to_pylist()
    right, official, margin = (np.zeros(len(rows)) for _ in range(3))
    kept: Box | None = None
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        found = exam.maps([Picture(row["picture"]) for row in part], [row["text"] for row in part])
        for place, (row, grid) in enumerate(zip(part, found, strict=True), start):
            scores = box_scores(grid, (row["height"], row["width"]), row["boxes"])
            hits = np.array([iou(row["target"], box) >= LEAST_IOU for box in row["boxes"]])
            best = int(scores.argmax())
            if scores[best] > 0:
                kept = row["boxes"][best]
            alike = scores >= scores[best] - TIE * max(1.0, scores[best])  # sums over boxes are rounded, too
            right[place] = scores[best] > TIE and hits[alike].all()
            official[place] = kept is not None and iou(row["target"], kept) >= LEAST_IOU
            margin[place] = scores[best] - max(np.delete(scores, best), default=0.0)
    tables = [
        scoring.table(BENCHMARK.name, name, items, outcome, margin, items["split"].to_pylist())
        for name, outcome in ((METRIC, right), (METRIC + scoring.OFFICIAL, official))
    ]
    return pa.concat_tables(tables)


def metrics(outcomes: pa.Table) -> Metrics:
    """Share of expressions, of each split by itself; there is no mean over splits."""
    names = {METRIC: "", METRIC + scoring.OFFICIAL: scoring.OFFICIAL}
    return {
        split + twin: value
        for metric, twin in names.items() for split, value in scoring.by_slice(outcomes, metric).items()
    }  # fmt: skip


def box_scores(grid: npt.NDArray[np.float32], size: tuple[int, int], boxes: Sequence[Box]) -> Floats:
    """Of each box the sum of the map inside, divided by the root of its area. `size` is (height, width) of the photo.

    The map is scaled to a maximum of 1 first: gradients may be so small that everything would tie.
    """
    import torch
    import torch.nn.functional as F

    top = float(grid.max())
    if top <= 0:
        return np.zeros(len(boxes))
    small = torch.from_numpy(np.asarray(grid, np.float32) / np.float32(top))
    resized = F.interpolate(small[None, None], size=size, mode="bicubic")[0, 0].numpy()
    sums = [
        resized[int(y) : int(y + height), int(x) : int(x + width)].sum(dtype=np.float64)
        for x, y, width, height in boxes
    ]
    return np.array([total / math.sqrt(box[2] * box[3]) for total, box in zip(sums, boxes, strict=True)])


def iou(one: Box, other: Box) -> float:
    """Intersection over union. An overlap of no more than one pixel counts as none, as in the official code."""
    width, height = (
        min(one[side] + one[side + 2], other[side] + other[side + 2]) - max(one[side], other[side]) for side in (0, 1)
    )
    shared = width * height if width > 1 and height > 1 else 0.0
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def training_pairs(folder: Path) -> tuple[list[Picture], list[str]]:
    """Photos and expressions of the training split, for fine-tuning: no box is in them."""
    entries = _list(files.read_json(folder, TRAINING), folder / TRAINING)
    named = [
        tuple(files.field(entry, name, str, f"{folder / TRAINING}: entry {i}") for name in ("image", "text"))
        for i, entry in enumerate(entries)
    ]
    return [Picture(f"coco/train2014/{Path(image).name}") for image, _ in named], [text for _, text in named]


_AGAIN = "Fetch the official file again."


def _instances(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[int, Box]]:
    """Photos by number, and the boxes of objects by theirs."""
    content, path = files.read_json(folder, INSTANCES), folder / INSTANCES
    photos, objects = {}, {}
    for i, entry in enumerate(files.field(content, "images", list, str(path))):
        where = f"{path}: image {i}"
        kinds = {"file_name": str, "width": int, "height": int}
        found = {name: files.field(entry, name, kind, where) for name, kind in kinds.items()}
        if min(found["width"], found["height"]) < 1:
            raise UserError(f"{where}: is {found['width']}x{found['height']} pixels. {_AGAIN}")
        photos[files.field(entry, "id", int, where)] = found
    for i, entry in enumerate(files.field(content, "annotations", list, str(path))):
        where = f"{path}: annotation {i}"
        objects[files.field(entry, "id", int, where)] = _box(files.field(entry, "bbox", list, where), where)
    return photos, objects


def _detections(folder: Path) -> dict[int, list[Box]]:
    """Boxes that the detector found, by the photo's number."""
    content, path = files.read_json(folder, DETECTIONS), folder / DETECTIONS
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a table by photo. {_AGAIN}")
    found = {}
    for photo, boxes in content.items():
        where = f"{path}: photo {photo}"
        if not photo.isdecimal() or not isinstance(boxes, list) or not boxes:
            raise UserError(f"{where}: has no list of boxes. {_AGAIN}")
        found[int(photo)] = [_box(box, f"{where}, box {i}") for i, box in enumerate(boxes)]
    return found


def _box(box: Any, where: str) -> Box:
    """The first four numbers."""
    if not isinstance(box, list) or len(box) < 4 or not all(isinstance(value, int | float) for value in box[:4]):
        raise UserError(f"{where}: box is not [left, top, width, height]. {_AGAIN}")
    if not all(map(math.isfinite, box[:4])) or min(box[2:4]) <= 0 or min(box[:2]) < 0:
        raise UserError(f"{where}: box {box[:4]} has no area, or lies outside the photo. {_AGAIN}")
    return [float(value) for value in box[:4]]


def _references(folder: Path) -> dict[int, dict[str, Any]]:
    """{ref_id: its entry} of the pickled list."""
    path = folder / REFERENCES
    try:
        content = _Plain(io.BytesIO(files.read(folder, REFERENCES)), encoding="latin1").load()
    except UserError:
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes lead to
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    found = {}
    for i, entry in enumerate(_list(content, path)):
        kinds = {"ref_id": int, "ann_id": int, "image_id": int, "split": str}
        found[entry["ref_id"] if isinstance(entry, dict) and "ref_id" in entry else i] = {
            name: files.field(entry, name, kind, f"{path}: reference {i}") for name, kind in kinds.items()
        }
    return found


class _Plain(pickle.Unpickler):
    """Reads lists, mappings, texts and numbers, and runs nothing: a pickle that names a function is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(f"{REFERENCES}: wants to run {module}.{name}, which the official file does not. {_AGAIN}")


def _list(content: Any, path: Path) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: is not a list of entries. {_AGAIN}")
    return content


def _known(table: dict[int, Any], key: int, name: str, where: str, file: str) -> Any:
    if key not in table:
        raise UserError(f"{where}: {name} {key} is not in {file}. Take both files of one release.")
    return table[key]


BENCHMARK = Official(
    name="refcoco", title="RefCOCO+", ability="pointing at what an expression names",
    files=(*(File(path) for path in (*EXPRESSIONS, REFERENCES, INSTANCES, DETECTIONS)), File(TRAINING, needed=False)),
    source="The expressions and the folder refcoco+ with dets.json come in the data bundle that ALBEF's README links "
    "(github.com/salesforce/ALBEF); refs(unc).p and instances.json are of lichengunc/refer (Apache-2.0).",
    pictures="COCO's in coco/train2014", asks="grounding", load=load, score=score, metrics=metrics,
    headline="val",
)  # fmt: skip
BENCHMARKS = {BENCHMARK.name: BENCHMARK}
