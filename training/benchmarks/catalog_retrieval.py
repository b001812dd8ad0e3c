"""Catalog retrieval: from a product's title to its photo and back, among all photos and titles of the test split.

Products that share a title are all correct for it, and so are all titles of one photo. A query's rank is that of its
best correct target; wrong targets that score as high push it down, correct ones do not (see `training.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.outcomes import Benchmark, Examinee, Question, outcome_table
from training.ranking import ranks

NAME = "catalog_retrieval"
AT = (1, 5, 10)


def score(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of R@1, R@5, R@10 from title to photo (t2i) and from photo to title (i2t); detail: the rank."""
    titles, title_of = _distinct(items["title_key"].to_pylist())
    photos, photo_of = _distinct(items["image_key"].to_pylist())
    texts = items["caption"].take(titles).to_pylist()
    keys = items["image_key"].take(photos).to_pylist()
    _demand_gallery(min(len(titles), len(photos)))
    pairs = np.unique(np.column_stack([title_of, photo_of]), axis=0)
    title_rank, photo_rank = ranks(examinee.texts(texts), examinee.images(keys), pairs)
    return pa.concat_tables([
        outcome_table(NAME, f"{direction}_R@{k}", items, rank <= k, rank.astype(np.float64))
        for direction, rank in (("t2i", title_rank[title_of]), ("i2t", photo_rank[photo_of]))
        for k in AT
    ])  # fmt: skip


def _demand_gallery(size: int) -> None:
    """Among ten or fewer candidates every answer is a success at 10: that would be no score."""
    if size <= max(AT):
        raise UserError(
            f"{NAME}: the test split has {size} distinct photos or titles, and R@{max(AT)} needs more than {max(AT)}. "
            "Land more products, then `dvc repro suites`."
        )


def _distinct(values: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Position of the first occurrence of each distinct value (G,), and each item's place in that list (N,)."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    index = np.array([places[value] for value in values], dtype=np.int64)
    return np.unique(index, return_index=True)[1].astype(np.int64), index


BENCHMARK = Benchmark(
    name=NAME,
    endpoint="search",
    suite="retrieval.parquet",
    columns=("item_id", "image_key", "group", "caption", "title_key"),
    gate_metrics=("t2i_R@10", "i2t_R@10"),
    score=score,
    question=lambda item: Question(asked=item["caption"]),
    detail="rank",
)
