"""GeneCIS: which of 10 or 15 pictures is like this one in what the word says, or like it but for what the word says.

Vaze, Carion, Misra, CVPR 2023; files of facebookresearch/genecis. Four tasks: focus on or change an attribute (boxes of
Visual Genome) or an object (photos of COCO val2017). Boxes grow by 0.7 of their width and height: the left and top side
do, the right and bottom one only where the photo's edge stopped the other, for they are counted from the grown left and
top. What is cut out is padded to a black square. R@1, 2, 3 per task; the headline is the mean R@1 of the tasks. The
published code puts the target first and sorts, so that it may win every tie: "(official)" is what it then gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.composed import (
    WAYS,
    by_type,
    each_way,
    entries,
    finite,
    rank_of_first,
    recalls,
    scores_among,
    ways,
)
from training.official.contract import Exam, File, Metrics, Official, Picture, Vectors
from training.official.files import field
from training.official.scoring import OFFICIAL
from training.ranking import TIE, Integers

NAME = "genecis"
TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
CANDIDATES = {"attribute": 10, "object": 15}  # the target among them, in the official files
AT = (1, 2, 3)
GROWN = 0.7
MEAN = "task mean"


def load(folder: Path) -> pa.Table:
    """Queries of the four tasks: `task`, `condition`, and pictures: `reference`, and `candidates`, the target first.

    A picture is {path, box}; `group` is the reference's photo.
    """
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        sizes = set()
        for number, (where, entry) in enumerate(entries(folder, f"{task}.json")):
            pictures = [field(entry, "reference", dict, where), field(entry, "target", dict, where)]
            pictures += field(entry, "gallery", list, where)
            reference, *candidates = (_picture(folder.parent, task, found, where) for found in pictures)
            sizes.add(len(candidates))
            if len(sizes) > 1 or len(candidates) <= max(AT):
                raise UserError(
                    f"{where}: field `gallery` has {len(candidates) - 1} pictures; all of a task have the same "
                    f"number, at least {max(AT)}. Fetch the official file again."
                )
            rows.append({
                "item_id": f"{task}:{number}", "task": task, "condition": field(entry, "condition", str, where),
                "reference": reference, "candidates": candidates,
            })  # fmt: skip
    groups = pc.dictionary_encode(pa.array([row["reference"]["path"] for row in rows])).indices.cast(pa.int64())
    return pa.Table.from_pylist(rows).append_column("group", groups)


def _picture(root: Path, task: str, found: Any, where: str) -> dict[str, Any]:
    """Path below the benchmarks folder, and the box that is cut out, None for the whole."""
    if task.endswith("object"):
        return {"path": f"coco/val2017/{field(found, 'val_image_id', int, where):012}.jpg", "box": None}
    key, box = field(found, "image_id", (int, str), where), field(found, "instance_bbox", list, where)
    if len(box) != 4 or not all(isinstance(side, int | float) for side in box) or min(box[2:]) <= 0:
        raise UserError(f"{where}: field `instance_bbox` is not [x, y, width, height]. Fetch the official file again.")
    halves = [f"vg/{half}/{key}.jpg" for half in ("VG_100K", "VG_100K_2")]  # Visual Genome comes in two archives
    path = next((half for half in halves if (root / half).is_file()), halves[0])
    return {"path": path, "box": grown(box)}


def grown(box: Sequence[float]) -> list[float]:
    """(left, top, right, bottom) of [x, y, width, height], grown; the photo's right and bottom edge cut it later."""
    x, y, width, height = box
    left, top = max(0.0, x - GROWN * width), max(0.0, y - GROWN * height)
    return [left, top, left + (1 + GROWN) * width, top + (1 + GROWN) * height]


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of R@1, 2, 3, composed, by the picture alone and by the word alone; slices are the tasks."""
    found = items["task"].to_pylist()
    tasks = [task for task in TASKS if task in found]
    return pa.concat_tables([_score(items.filter(pc.equal(items["task"], task)), task, exam) for task in tasks])


def _score(items: pa.Table, task: str, exam: Exam) -> pa.Table:
    shown = [[_of(picture) for picture in row] for row in items["candidates"].to_pylist()]
    place = {picture: at for at, picture in enumerate(dict.fromkeys(picture for row in shown for picture in row))}
    gallery, slices = finite(exam.images(list(place))), [task] * items.num_rows
    candidates: Integers = np.array([[place[picture] for picture in row] for row in shown], np.int64)
    references = [_of(picture) for picture in items["reference"].to_pylist()]

    def outcomes(way: str, queries: Vectors) -> list[pa.Table]:
        scores = scores_among(queries, gallery, candidates)
        first_of_equals = 1 + (scores[:, 1:] > scores[:, :1] + TIE).sum(1)
        official = recalls(NAME, f"{way}R", items, first_of_equals, AT, slices, OFFICIAL)
        return [*recalls(NAME, f"{way}R", items, rank_of_first(scores), AT, slices), *official]

    return each_way(ways(exam, references, items["condition"].to_pylist()), outcomes)


def _of(found: dict[str, Any]) -> Picture:
    box = found["box"]
    return Picture(found["path"], (box[0], box[1], box[2], box[3]), square=True) if box else Picture(found["path"])


def metrics(outcomes: pa.Table) -> Metrics:
    """Recalls of each task, and their mean over the tasks."""
    found: Metrics = {}
    for metric, tasks in by_type(outcomes).items():
        name, rule = metric.removesuffix(OFFICIAL), OFFICIAL if metric.endswith(OFFICIAL) else ""
        found |= {f"{name} ({task}){rule}": value for task, value in tasks.items()}
        found[f"{name} ({MEAN}){rule}"] = float(np.mean(list(tasks.values())))
    return found


CHANCE = {f"R@{k} ({task})": 100 * k / CANDIDATES[task.split("_")[1]] for k in AT for task in TASKS}
BENCHMARK = Official(
    name=NAME,
    title="GeneCIS",
    ability="conditional similarity",
    files=tuple(File(f"{task}.json") for task in TASKS),
    source="The official files are genecis/*.json of github.com/facebookresearch/genecis (CC-BY-NC-4.0).",
    pictures="COCO val2017 as coco/val2017/*.jpg (cocodataset.org), and Visual Genome 1.2 as vg/VG_100K/*.jpg and "
    "vg/VG_100K_2/*.jpg (visualgenome.org).",
    asks="compose",
    load=load,
    score=score,
    metrics=metrics,
    headline=f"R@1 ({MEAN})",
    chance={**CHANCE, **{f"R@{k} ({MEAN})": float(np.mean([CHANCE[f"R@{k} ({task})"] for task in TASKS])) for k in AT}},
    constant={f"{way}R@{k} ({of})": 100.0 for way in WAYS for k in AT for of in (*TASKS, MEAN)},
)
BENCHMARKS = {NAME: BENCHMARK}
