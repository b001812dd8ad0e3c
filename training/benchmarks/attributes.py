"""Attribute recognition: what is this product, by its photo and its title? One question per product and task.

Right is the product's class if it has the highest probability, strictly. Beside the accuracy stands that of a guess of
the commonest class, and the recall at 90 % precision: the share of products that can be filled in unseen if nine in ten
answers have to be right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.outcomes import Benchmark, Examinee, Question, cells, column, outcome_table
from training.ranking import likeliest
from training.recall_at_precision import recall_at_precision
from training.statistics import ALPHA, SEED

NAME, METRIC, CONTROL = "attributes", "accuracy", "blind_accuracy"
PRECISION, RECALL = 0.9, "recall_at_90_precision"
DRAWS = 1000  # resamples of its interval: each sorts every item again

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def score(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of `accuracy` and `blind_accuracy` by task; detail: the probability of the class that was chosen."""
    asked = list(zip(items["image_key"].to_pylist(), items["title"].to_pylist(), strict=True))
    products = {product: place for place, product in enumerate(dict.fromkeys(asked))}
    answers = examinee.attributes([key for key, _ in products], [title or None for _, title in products])
    place = np.array([products[product] for product in asked])
    tasks = np.array(items["task"].to_pylist())
    labels = np.array(items["label"].to_pylist())
    correct, confidence = np.zeros(len(asked), dtype=bool), np.zeros(len(asked))
    for task in dict.fromkeys(tasks.tolist()):
        if task not in answers:
            raise UserError(f"{NAME}: the model answers {', '.join(answers)} but not {task}. Train it again.")
        names, probabilities = answers[task]
        mine = np.flatnonzero(tasks == task)
        if not np.isfinite(probabilities).all():
            raise UserError(f"{NAME}: the model gave probabilities that are not numbers. Train it again.")
        chosen, sure, clear = likeliest(np.asarray(probabilities, np.float64)[place[mine]])
        correct[mine] = (np.array(names)[chosen] == labels[mine]) & clear
        confidence[mine] = sure
    guessed = labels == np.array(items["commonest"].to_pylist())
    return pa.concat_tables([
        outcome_table(NAME, METRIC, items, correct, confidence, tasks.tolist()),
        outcome_table(NAME, CONTROL, items, guessed, np.ones(len(asked)), tasks.tolist()),
    ])  # fmt: skip


def recalls(outcomes: pa.Table) -> dict[str, dict[str, float]]:
    """Recall at 90 % precision of each task and their mean, with percentile intervals over product families."""
    cell = cells(outcomes)[NAME, METRIC]
    correct, confidence = column(cell, "outcome"), column(cell, "detail")
    units, tasks = np.unique(column(cell, "unit"), return_inverse=True)[1], column(cell, "slice")
    members = {task: np.flatnonzero(tasks == task) for task in sorted(set(tasks))}

    def recall(rows: Integers) -> float:
        return recall_at_precision(correct[rows], confidence[rows], PRECISION)

    generator = np.random.default_rng(SEED)
    families = units.max() + 1
    drawn = np.empty((DRAWS, len(members)))
    for draw in range(DRAWS):
        times = np.bincount(generator.integers(0, families, families), minlength=families)[units]
        drawn[draw] = [_of_sample(recall, rows, times[rows]) for rows in members.values()]
    values = np.array([recall(rows) for rows in members.values()])
    found = {RECALL: _interval(float(values.mean()), drawn.mean(1), len(correct))}
    for number, (task, rows) in enumerate(members.items()):
        found[f"{RECALL}/{task}"] = _interval(float(values[number]), drawn[:, number], len(rows))
    return found


def _of_sample(recall: Callable[[Integers], float], rows: Integers, times: Integers) -> float:
    sample = np.repeat(rows, times)
    return recall(sample) if len(sample) else 0.0


def _interval(value: float, drawn: Floats, n: int) -> dict[str, float]:
    low, high = np.quantile(drawn, (ALPHA / 2, 1 - ALPHA / 2))
    low, high = min(float(low), value), max(float(high), value)
    return {"value": round(value, 6), "low": round(low, 6), "high": round(high, 6), "n": n}


BENCHMARK = Benchmark(
    name=NAME,
    endpoint="attributes",
    suite="attributes.parquet",
    columns=("item_id", "image_key", "group", "title", "task", "label", "commonest"),
    gate_metrics=(METRIC,),
    score=score,
    question=lambda item: Question(asked=item["title"], right=f"{item['task'].replace('_', ' ')}: {item['label']}"),
    detail="confidence",
    control=CONTROL,
    blind="a guess of the commonest class",
    computed=recalls,
)
