"""What benchmarks of composed retrieval share: galleries that travel with the items, rankings, and controls.

A query is a picture and a change in words. Two controls stand beside it: what the picture alone and what the words
alone would find in the same gallery. Symbols: N queries, G pictures of a gallery, D dimensions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.official.contract import Exam, Picture, Vectors
from training.official.files import read_json
from training.official.scoring import table
from training.ranking import BLOCK, TIE, Integers

GALLERIES = b"galleries"  # key of the items' metadata
WAYS = ("", "image_only_", "text_only_")  # beginnings of metrics


def entries(folder: Path, path: str) -> Iterator[tuple[str, Any]]:
    """(where, entry) of a file that is a JSON list. Raises `UserError` for what is none, and for an empty one."""
    found = read_json(folder, path)
    if not isinstance(found, list) or not found:
        raise UserError(f"{folder / path}: is not a JSON list of queries. Fetch the official file again.")
    for number, entry in enumerate(found):
        yield f"{folder / path}: entry {number}", entry


def known(name: str, field: str, where: str, gallery: Mapping[str, str], split: Path) -> None:
    """Raises `UserError` if an entry's field names a picture that the file `split`, the gallery, does not list."""
    if name not in gallery:
        raise UserError(
            f"{where}: field `{field}` names picture {name}, which {split} does not list. "
            "Fetch both files again; they must be of one version."
        )


def distinct(names: Sequence[str], where: str) -> None:
    """Raises `UserError` for a query or picture that is listed twice: it would count or be ranked twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{where}: lists {twice[0]} twice. Fetch the official file again.")


def with_galleries(items: pa.Table, galleries: Mapping[str, Mapping[str, str]]) -> pa.Table:
    """The items, with {gallery: {picture's name: its path below the benchmarks folder}} in the table's metadata."""
    return items.replace_schema_metadata({**(items.schema.metadata or {}), GALLERIES: json.dumps(galleries).encode()})


def galleries(items: pa.Table) -> dict[str, dict[str, str]]:
    """What `with_galleries` wrote."""
    found: dict[str, dict[str, str]] = json.loads(items.schema.metadata[GALLERIES])
    return found


class Gallery:
    """The pictures that queries are ranked among, before a model.

    Attributes:
        names, vectors: of the G pictures, (G, D).
    """

    def __init__(self, exam: Exam, paths: Mapping[str, str], pad: float = 0.0) -> None:
        self._exam, self._pictures = exam, {name: Picture(path, pad=pad) for name, path in paths.items()}
        self._place = {name: place for place, name in enumerate(paths)}
        self.names, self.vectors = list(paths), finite(exam.images(list(self._pictures.values())))

    def at(self, names: Sequence[str]) -> Integers:
        """Places (N,) of pictures in the gallery."""
        return np.array([self._place[name] for name in names], np.int64)

    def queries(self, references: Sequence[str], changes: Sequence[str]) -> dict[str, Vectors]:
        """`ways` to ask for pictures of the gallery, changed as the words say."""
        return ways(self._exam, [self._pictures[name] for name in references], changes)


def ways(exam: Exam, references: Sequence[Picture], changes: Sequence[str]) -> dict[str, Vectors]:
    """{beginning of the metric: queries (N, D)}: composed, the picture alone, the words alone (`WAYS`)."""
    found = exam.compose(references, changes), exam.images(references), exam.texts(changes)
    return dict(zip(WAYS, map(finite, found), strict=True))


def finite(vectors: Vectors) -> Vectors:
    """The vectors. Raises `UserError` if one is not finite: a comparison with NaN is false, and would rank it first."""
    if not np.isfinite(vectors).all():
        raise UserError("the model's embeddings are not finite numbers, so nothing can be ranked. Train it again.")
    return vectors


def each_way(queries: Mapping[str, Vectors], outcomes: Callable[[str, Vectors], list[pa.Table]]) -> pa.Table:
    """One table of the outcomes of every way to ask."""
    return pa.concat_tables([part for way, vectors in queries.items() for part in outcomes(way, vectors)])


def by_type(outcomes: pa.Table) -> dict[str, dict[str, float]]:
    """{metric: {slice: percent}}: plain means; metrics in order of first appearance, slices by name."""
    found: dict[str, dict[str, float]] = {metric: {} for metric in outcomes["metric"].to_pylist()}
    means = outcomes.group_by(["metric", "slice"], use_threads=False).aggregate([("outcome", "mean")])
    for row in means.sort_by("slice").to_pylist():
        found[row["metric"]][row["slice"]] = 100 * row["outcome_mean"]
    return found


def recalls(
    benchmark: str, metric: str, items: pa.Table, rank: Integers, at: Sequence[int],
    slices: Sequence[str] | None = None, rule: str = "",
) -> list[pa.Table]:  # fmt: skip
    """Outcomes of `metric@K` for each K: whether the rank (N,) is at most K; detail: the rank. `rule` ends the name."""
    return [table(benchmark, f"{metric}@{k}{rule}", items, rank <= k, rank, slices) for k in at]


def hits(queries: Vectors, gallery: Vectors, right: Sequence[Sequence[int]]) -> list[Integers]:
    """Where in the ranking of the gallery each query's right pictures stand, ascending, 1 is best.

    Pessimistic: a wrong picture whose score is within TIE of a right one's stands before it.

    Args:
        queries, gallery: unit vectors (N, D) and (G, D).
        right: places of the right pictures of each query, distinct.
    """
    found: list[Integers] = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ gallery.T
        for line, correct in zip(scores, right[start : start + BLOCK], strict=True):
            best_first = np.sort(line[list(correct)])[::-1]
            line[list(correct)] = -np.inf
            wrong_before = [int((line >= score - TIE).sum()) for score in best_first]
            found.append(np.arange(1, len(best_first) + 1) + np.array(wrong_before, np.int64))
    return found


def scores_among(queries: Vectors, gallery: Vectors, candidates: Integers) -> Vectors:
    """Scores (N, C) of each query's own candidates, given by their places (N, C) in the gallery."""
    parts = [np.zeros((0, candidates.shape[1]), np.float32)]
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        parts.append(np.einsum("nd,ncd->nc", queries[part], gallery[candidates[part]]))
    return np.concatenate(parts)


def rank_of_first(scores: Vectors) -> Integers:
    """Pessimistic rank (N,) of the first candidate of each row of scores (N, C)."""
    rank: Integers = 1 + (scores[:, 1:] >= scores[:, :1] - TIE).sum(1)
    return rank


def nearest(queries: Vectors, gallery: Vectors, k: int, own: Integers | None = None) -> Integers:
    """Places (N, k) of the k pictures with the highest scores, best first; `own` (N,) is left out of each ranking."""
    import torch

    found = [np.zeros((0, k), np.int64)]
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ gallery.T
        if own is not None:
            scores[np.arange(len(scores)), own[start : start + BLOCK]] = -np.inf
        found.append(torch.from_numpy(scores).topk(k).indices.numpy())
    return np.concatenate(found)
