"""CIRR: a photo and a change in words, to the photo that shows the change, among all photos of the split.

Liu et al., ICCV 2021; files of Cuberick-Orion/CIRR, branch `cirr_dataset`. The reference is taken out of the ranking of
its own query. R@K ranks all photos left, R_s@K the five others of the query's set of six similar photos; of those,
guessing gets 20, 40 and 60. `target_soft` plays no part. The published code orders equal scores as its sort happens to,
so there is no official number for ties. Answers of test1 are withheld: `submit` writes what its server takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
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
    known,
    nearest,
    rank_of_first,
    recalls,
    scores_among,
    with_galleries,
)
from training.official.contract import Exam, File, Metrics, Official, Vectors
from training.official.files import field, read_json
from training.official.scoring import means
from training.ranking import Integers, best_ranks

NAME = "cirr"
AT, AT_SUBSET = (1, 5, 10, 50), (1, 2, 3)
SPLIT = "image_splits/split.rc2.{}.json"
SET = 6  # photos of a set, the reference among them
SENT, SENT_SUBSET = 50, 3  # names per query that the server takes


def load(folder: Path) -> pa.Table:
    """Validation queries: `reference`, `target`, `caption` and `others`, the four of the set that are neither.

    `group` is the set of similar photos. All photos of the split travel with the table.
    """
    return _items(folder, "val")


def _items(folder: Path, split: str) -> pa.Table:
    """Queries of a split; `target` is None in test1, and `others` are then five."""
    paths = _paths(folder, split)
    rows = []
    for where, entry in entries(folder, f"captions/cap.rc2.{split}.json"):
        reference = field(entry, "reference", str, where)
        target = field(entry, "target_hard", str, where) if split == "val" else None
        family = field(entry, "img_set", dict, where)
        members = field(family, "members", list, where)
        for name in (*members, *([target] if target else [])):
            known(
                str(name), "img_set" if name in members else "target_hard", where, paths, folder / SPLIT.format(split)
            )
        kept = [name for name in members if name not in (reference, target)]
        if len(set(members)) != SET or len(kept) != SET - 1 - bool(target):
            raise UserError(
                f"{where}: field `img_set` does not list {SET} photos with reference and target among them. "
                "Fetch the official file again."
            )
        rows.append({
            "item_id": str(field(entry, "pairid", int, where)), "group": field(family, "id", int, where),
            "reference": reference, "target": target, "caption": field(entry, "caption", str, where), "others": kept,
        })  # fmt: skip
    distinct([row["item_id"] for row in rows], str(folder / f"captions/cap.rc2.{split}.json"))
    return with_galleries(pa.Table.from_pylist(rows), {NAME: paths})


def _paths(folder: Path, split: str) -> dict[str, str]:
    """{name: path below the benchmarks folder} of every photo of the split."""
    path = SPLIT.format(split)
    found = read_json(folder, path)
    if not isinstance(found, Mapping) or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"{folder / path}: is not a JSON object of names and paths. Fetch the official file again.")
    return {name: str(PurePosixPath(NAME) / value) for name, value in found.items()}


class _Asked:
    """Queries of a split before a model: G photos of D dimensions, N queries, C others of each query's set."""

    def __init__(self, items: pa.Table, exam: Exam) -> None:
        self.gallery = Gallery(exam, galleries(items)[NAME])
        references = items["reference"].to_pylist()
        self.own = self.gallery.at(references)
        self.others = np.array([self.gallery.at(names) for names in items["others"].to_pylist()], np.int64)
        self.queries = self.gallery.queries(references, items["caption"].to_pylist())


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of R@1, 5, 10, 50 and R_s@1, 2, 3, composed, by the photo alone and by the words alone."""
    asked = _Asked(items, exam)
    photos, target = asked.gallery.vectors, asked.gallery.at(items["target"].to_pylist())
    among = np.column_stack([target, asked.others])

    def outcomes(way: str, queries: Vectors) -> list[pa.Table]:
        rank = best_ranks(queries, photos, target[:, None].tolist(), asked.own)
        rank_s = rank_of_first(scores_among(queries, photos, among))
        return [
            *recalls(NAME, f"{way}R", items, rank, AT),
            *recalls(NAME, f"{way}R_s", items, rank_s, AT_SUBSET),
        ]

    return each_way(asked.queries, outcomes)


def metrics(outcomes: pa.Table) -> Metrics:
    """Means over the queries, and (R@5 + R_s@1)/2 as supervised papers give it."""
    found = means(outcomes)
    for way in WAYS:
        if f"{way}R@5" in found and f"{way}R_s@1" in found:
            found[f"{way}(R@5 + R_s@1)/2"] = (found[f"{way}R@5"] + found[f"{way}R_s@1"]) / 2
    return found


def submit(folder: Path, exam: Exam) -> dict[str, dict[str, Any]]:
    """The two files that the test server takes: the 50 nearest photos of each test1 query, and the 3 of its set."""
    items = _items(folder, "test1")
    asked, ids = _Asked(items, exam), items["item_id"].to_pylist()
    composed, names, photos = asked.queries[WAYS[0]], asked.gallery.names, asked.gallery.vectors
    best = nearest(composed, photos, min(SENT, len(names) - 1), asked.own)
    order = np.argsort(-scores_among(composed, photos, asked.others), axis=1, kind="stable")[:, :SENT_SUBSET]
    best_s = np.take_along_axis(asked.others, order, axis=1)

    def content(metric: str, found: Integers) -> dict[str, Any]:
        answers = {name: [names[at] for at in row] for name, row in zip(ids, found, strict=True)}
        return {"version": "rc2", "metric": metric, **answers}

    return {
        "cirr_test1_recall.json": content("recall", best),
        "cirr_test1_recall_subset.json": content("recall_subset", best_s),
    }


BENCHMARK = Official(
    name=NAME,
    title="CIRR val",
    ability="composed retrieval in open scenes",
    files=(
        File("captions/cap.rc2.val.json", "cf1027ccf0593bec960ef06959b576632c4caeba44b0e3135cccef21a4d5e284"),
        File("image_splits/split.rc2.val.json", "18f51959dd524523816583063261ceb780d818d959101de0cdc0ac6dee033677"),
        File("captions/cap.rc2.test1.json", "d0ba71fd0dbd9cda15a983a4db0210af0513ca95983735721ad1477e80c9c57d", False),
        File(
            "image_splits/split.rc2.test1.json",
            "fe08075ebd8ee74119ef3f43cfb43dccec20244e2d33524dea1662b6d9dc36b0",
            needed=False,
        ),
    ),
    source="The official files are captions/ and image_splits/ of github.com/Cuberick-Orion/CIRR, branch cirr_dataset "
    "(MIT).",
    pictures="The photos of NLVR2, as cirr/dev/*.png and cirr/test1/*.png (the form at lil.nlp.cornell.edu/nlvr).",
    asks="compose",
    load=load,
    score=score,
    metrics=metrics,
    headline="R@1",
    chance={"R_s@1": 20.0, "R_s@2": 40.0, "R_s@3": 60.0},
    submit=submit,
)
BENCHMARKS = {NAME: BENCHMARK}
