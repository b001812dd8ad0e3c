"""Category recognition: what kind of product is on this photo? Zero-shot, by the names of the article types.

Right is the product's article type if it is the likeliest of all that the train split taught, strictly. Only the photo
is shown: titles name the category. Accuracy favours common types, so the mean over types stands beside it. Shown, not
compared by the gate: a model is not promoted for what its endpoint is not asked.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.outcomes import Benchmark, Examinee, Question, cells, column, outcome_table
from training.ranking import likeliest
from training.statistics import ALPHA, SEED

NAME, TASK, METRIC, CONTROL = "category", "article_type", "accuracy", "blind_accuracy"
DRAWS = 1000  # resamples of the interval of the mean over types


def score(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of `accuracy` by article type and of `blind_accuracy`; detail: the probability of the chosen one."""
    keys, labels = items["image_key"].to_pylist(), np.array(items["label"].to_pylist())
    answers = examinee.attributes(keys, [None] * len(keys))
    if TASK not in answers:
        raise UserError(f"{NAME}: the model answers {', '.join(answers)} but not {TASK}. Train it again.")
    names, probabilities = answers[TASK]
    chosen, sure, clear = likeliest(np.asarray(probabilities, np.float64))
    guessed = labels == np.array(items["commonest"].to_pylist())
    return pa.concat_tables([
        outcome_table(NAME, METRIC, items, (np.array(names)[chosen] == labels) & clear, sure, labels.tolist()),
        outcome_table(NAME, CONTROL, items, guessed, np.ones(len(keys))),
    ])  # fmt: skip


def per_type(outcomes: pa.Table) -> dict[str, dict[str, float]]:
    """`mean_per_type`: the plain mean of the accuracies of the types, with a percentile interval over families."""
    cell = cells(outcomes)[NAME, METRIC]
    correct, units = column(cell, "outcome"), np.unique(column(cell, "unit"), return_inverse=True)[1]
    types = np.unique(column(cell, "slice"), return_inverse=True)[1]

    def mean(times: np.ndarray) -> float:
        asked = np.bincount(types, weights=times)
        return float((np.bincount(types, weights=times * correct)[asked > 0] / asked[asked > 0]).mean())

    generator, families = np.random.default_rng(SEED), units.max() + 1
    drawn = [
        mean(np.bincount(generator.integers(0, families, families), minlength=families)[units]) for _ in range(DRAWS)
    ]
    value, (low, high) = mean(np.ones(len(correct))), np.quantile(drawn, (ALPHA / 2, 1 - ALPHA / 2))
    interval = {"low": min(float(low), value), "high": max(float(high), value)}
    return {"mean_per_type": {"value": round(value, 6), **{k: round(v, 6) for k, v in interval.items()},
                              "n": len(correct)}}  # fmt: skip


BENCHMARK = Benchmark(
    name=NAME,
    endpoint="search",
    suite="attributes.parquet",
    columns=("item_id", "image_key", "group", "task", "label", "commonest"),
    gate_metrics=(),
    score=score,
    question=lambda item: Question(right=f"article type: {item['label']}"),
    detail="confidence",
    control=CONTROL,
    blind="a guess of the commonest type",
    computed=per_type,
    only=lambda items: items.filter(pc.equal(items["task"], TASK)),
)
