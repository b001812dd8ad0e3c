"""Composed retrieval: from a photo and a wish ("in red") to a photo of such a product, among all other test photos.

Right is any photo of a product that differs from the query's in exactly the wished attribute. The query's own photo is
taken out of the ranking, as in CIRR: it would come first for whoever ignores the wish. Rank = 1 + wrong photos that
score at least as high as the best right one, so a tie is never a success. Beside it stands what the photo alone and the
wish alone would find.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.outcomes import Benchmark, Examinee, Question, outcome_table
from training.ranking import Integers, ranks_without_own

NAME = "composed_retrieval"
AT = (1, 5, 10)


def score(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of R@1, R@5, R@10, and of R@10 by the photo alone and by the wish alone; detail: the rank."""
    keys, conditions = items["image_key"].to_pylist(), items["condition"].to_pylist()
    gallery = examinee.gallery()
    own, right = _places(gallery, keys, items["targets"].to_pylist())
    photos, changed = examinee.images(gallery), items["changed"].to_pylist()

    def table(metric: str, k: int, rank: Integers) -> pa.Table:
        slices = changed if k == AT[-1] else None
        return outcome_table(NAME, metric, items, rank <= k, rank.astype(np.float64), slices)

    composed = ranks_without_own(examinee.compose(keys, conditions), photos, own, right)
    return pa.concat_tables([
        *(table(f"R@{k}", k, composed) for k in AT),
        table(f"image_only_R@{AT[-1]}", AT[-1], ranks_without_own(examinee.images(keys), photos, own, right)),
        table(f"text_only_R@{AT[-1]}", AT[-1], ranks_without_own(examinee.texts(conditions), photos, own, right)),
    ])  # fmt: skip


def _places(
    gallery: Sequence[str], keys: Sequence[str], targets: Sequence[Sequence[str]]
) -> tuple[Integers, list[list[int]]]:
    """Where the queries' own photos and their right answers stand in the gallery."""
    if len(gallery) <= max(AT) + 1:
        raise UserError(
            f"{NAME}: the test split has {len(gallery)} photos, and R@{max(AT)} needs more than {max(AT) + 1}. "
            "Land more products, then `dvc repro suites`."
        )
    places = {key: place for place, key in enumerate(gallery)}
    absent = sorted({key for key in itertools.chain(keys, *targets) if key not in places})
    if absent or not all(targets):
        what = f"photo {absent[0]} is not of the test split" if absent else "an item has no right answer"
        raise UserError(f"{NAME}: {what}, so suite and dataset do not fit together. Run `dvc repro -f suites`.")
    own = np.array([places[key] for key in keys], dtype=np.int64)
    return own, [[places[key] for key in found if key != query] for query, found in zip(keys, targets, strict=True)]


BENCHMARK = Benchmark(
    name=NAME,
    endpoint="compose",
    suite="composed.parquet",
    columns=("item_id", "image_key", "group", "changed", "value", "condition", "targets"),
    gate_metrics=("R@10",),
    score=score,
    question=lambda item: Question(asked=f"the same, {item['condition']}"),
    detail="rank",
)
