"""CIRCO: a photo and a change in words, to all photos that show the change, among 123,403 photos of COCO (validation).

Baldrati et al., ICCV 2023; files of miccunifi/CIRCO. A query has G right photos, the first of which is its target:
    AP@K = Σ_{k≤K} P@k · rel_k / min(K, G),    mAP@K its mean over queries
R@K asks for the target alone. The reference stays in the gallery and is never right. mAP@10 also comes by semantic
aspect, of which a query has several. The published code orders equal scores as its sort happens to, so there is no
official number for ties. Answers of the test split are withheld: `submit` writes what its server takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.official.composed import (
    WAYS,
    Gallery,
    distinct,
    each_way,
    entries,
    galleries,
    hits,
    known,
    nearest,
    recalls,
    with_galleries,
)
from training.official.contract import Exam, File, Metrics, Official, Vectors
from training.official.files import field, read_json
from training.official.scoring import means, percent, table
from training.outcomes import cells, column
from training.ranking import Integers, best_ranks

NAME = "circo"
PHOTOS = "annotations/image_info_unlabeled2017.json"
AT = (5, 10, 25, 50)
BY_ASPECT = 10  # K of the mAP that comes by aspect too
SENT = 50  # photos per query that the server takes
AND = "+"  # between the aspects of a query in its slice


def load(folder: Path) -> pa.Table:
    """Validation queries: `reference`, `right` (the target first), `caption`, `aspects`; photos by their COCO ids.

    `group` is the reference photo. All photos travel with the table.
    """
    return _items(folder, "val")


def _items(folder: Path, split: str) -> pa.Table:
    """Queries of a split; `right` and `aspects` are empty in the test split."""
    paths = _paths(folder)
    rows = []
    for where, entry in entries(folder, f"annotations/{split}.json"):
        reference = field(entry, "reference_img_id", int, where)
        known(str(reference), "reference_img_id", where, paths, folder / PHOTOS)
        rows.append({
            "item_id": str(field(entry, "id", int, where)), "group": reference, "reference": str(reference),
            "caption": field(entry, "relative_caption", str, where),
            "right": _right(entry, where, paths, folder) if split == "val" else [],
            "aspects": list(map(str, field(entry, "semantic_aspects", list, where))) if split == "val" else [],
        })  # fmt: skip
    distinct([row["item_id"] for row in rows], str(folder / f"annotations/{split}.json"))
    return with_galleries(pa.Table.from_pylist(rows), {NAME: paths})


def _right(entry: Any, where: str, paths: Mapping[str, str], folder: Path) -> list[str]:
    """The right photos, the target first."""
    target = str(field(entry, "target_img_id", int, where))
    right = [str(photo) for photo in field(entry, "gt_img_ids", list, where)]
    distinct(right, f"{where}: field `gt_img_ids`")
    for photo in right:
        known(photo, "gt_img_ids", where, paths, folder / PHOTOS)
    if target not in right:
        raise UserError(f"{where}: field `gt_img_ids` lacks the target {target}. Fetch the official file again.")
    return [target, *(photo for photo in right if photo != target)]


def _paths(folder: Path) -> dict[str, str]:
    """{id: path below the benchmarks folder} of every photo."""
    listed = field(read_json(folder, PHOTOS), "images", list, str(folder / PHOTOS))
    paths = [
        (str(field(entry, "id", int, where)), f"coco/unlabeled2017/{field(entry, 'file_name', str, where)}")
        for where, entry in ((f"{folder / PHOTOS}: image {number}", entry) for number, entry in enumerate(listed))
    ]
    distinct([key for key, _ in paths], str(folder / PHOTOS))
    return dict(paths)


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of mAP@5, 10, 25, 50 (an average precision per query) and of R@K, composed, by photo and by words."""
    gallery = Gallery(exam, galleries(items)[NAME])
    right = [gallery.at(names).tolist() for names in items["right"].to_pylist()]
    aspects = [AND.join(found) for found in items["aspects"].to_pylist()]

    def outcomes(way: str, queries: Vectors) -> list[pa.Table]:
        found = hits(queries, gallery.vectors, right)
        first = np.array([ranks[0] for ranks in found])
        rank = best_ranks(queries, gallery.vectors, [photos[:1] for photos in right])
        precisions = {k: np.array([average_precision(ranks, k) for ranks in found]) for k in AT}
        return [
            *(
                table(NAME, f"{way}mAP@{k}", items, precisions[k], first, aspects if k == BY_ASPECT else None)
                for k in AT
            ),
            *recalls(NAME, f"{way}R", items, rank, AT),
        ]

    return each_way(gallery.queries(items["reference"].to_pylist(), items["caption"].to_pylist()), outcomes)


def average_precision(found: Integers | Sequence[int], k: int) -> float:
    """AP@K of the ranks (G,) at which the right photos stand, ascending; ValueError if two stand at one rank."""
    ranks = np.asarray(found)
    if (np.diff(ranks) <= 0).any():
        raise ValueError(f"ranks {ranks.tolist()} are not distinct and ascending")
    precision = np.arange(1, len(ranks) + 1) / ranks
    return float(precision[ranks <= k].sum() / min(k, len(ranks)))


def metrics(outcomes: pa.Table) -> Metrics:
    """Means over the queries; of mAP@10 also over the queries that have an aspect."""
    found = means(outcomes)
    for (_, metric), cell in cells(outcomes).items():
        if metric in {f"{way}mAP@{BY_ASPECT}" for way in WAYS}:
            values, aspects = column(cell, "outcome"), [name.split(AND) for name in column(cell, "slice")]
            for aspect in sorted({aspect for of in aspects for aspect in of if aspect}):
                found[f"{metric} ({aspect})"] = percent(values[[aspect in of for of in aspects]])
    return found


def submit(folder: Path, exam: Exam) -> dict[str, dict[str, Any]]:
    """The file that the test server takes: the ids of the 50 nearest photos of each test query."""
    items = _items(folder, "test")
    gallery = Gallery(exam, galleries(items)[NAME])
    asked = gallery.queries(items["reference"].to_pylist(), items["caption"].to_pylist())
    best = nearest(asked[WAYS[0]], gallery.vectors, min(SENT, len(gallery.names)))
    ids = items["item_id"].to_pylist()
    return {
        "circo_test.json": {name: [int(gallery.names[at]) for at in row] for name, row in zip(ids, best, strict=True)}
    }


BENCHMARK = Official(
    name=NAME,
    title="CIRCO val",
    ability="composed retrieval with several right answers",
    files=(File("annotations/val.json"), File(PHOTOS), File("annotations/test.json", needed=False)),
    source="The official files are annotations/ of github.com/miccunifi/CIRCO (CC-BY-NC-4.0), and "
    "image_info_unlabeled2017.json of cocodataset.org (2017 Unlabeled images info), put beside them.",
    pictures="All 123,403 photos of COCO unlabeled2017, as coco/unlabeled2017/*.jpg (cocodataset.org).",
    asks="compose",
    load=load,
    score=score,
    metrics=metrics,
    headline="mAP@5",
    submit=submit,
)
BENCHMARKS = {NAME: BENCHMARK}
