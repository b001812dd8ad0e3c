"""Compositional benchmark: does the photo fit its caption better than the caption with one thing changed?

Success is score(image, caption) > score(image, negative), strictly; a tie is never a success (`TIE` is what float32
cosines cannot tell apart). Beside the model's accuracy stands that of a text-only control on the same items.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from training.blind import BlindScorer
from training.outcomes import Benchmark, Examinee, Question, outcome_table
from training.ranking import TIE

NAME = "compositional"


def score(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of `accuracy` (detail: score difference) and `blind_accuracy` (detail: log-likelihood difference)."""
    captions, negatives = items["caption"].to_pylist(), items["negative"].to_pylist()
    photos = examinee.images(items["image_key"].to_pylist())
    # One einsum over the difference of the two text vectors would round differently from two scores; keep two scores.
    right, wrong = (np.einsum("nd,nd->n", photos, examinee.texts(texts)) for texts in (captions, negatives))
    margin = (right - wrong).astype(np.float64)
    blind = BlindScorer(examinee.training_texts())
    prior = np.array(
        [blind.log_likelihood(c) - blind.log_likelihood(n) for c, n in zip(captions, negatives, strict=True)]
    )
    slices = items["edit_type"].to_pylist()
    return pa.concat_tables([
        outcome_table(NAME, "accuracy", items, margin > TIE, margin, slices),
        outcome_table(NAME, "blind_accuracy", items, prior > TIE, prior, slices),
    ])  # fmt: skip


BENCHMARK = Benchmark(
    name=NAME,
    endpoint="search",
    suite="compositional.parquet",
    columns=("item_id", "image_key", "group", "caption_kind", "caption", "edit_type", "edit", "negative"),
    gate_metrics=("accuracy",),
    score=score,
    question=lambda item: Question(right=item["caption"], wrong=item["negative"]),
    detail="difference",
    control="blind_accuracy",
)
