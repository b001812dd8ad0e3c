"""Robustness: the questions of each endpoint again, with photos that are blurred, cut or noisy, or without the title.

A sample of the endpoint's own items, the same for every model; beside each disturbance stands the undisturbed score on
the very same items. Disturbed is what a caller brings (`training.disturbance`), never the catalog that is searched.
Shown, not compared by the gate: nobody promised a margin, and a loss here explains one elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.disturbance import KINDS
from training.outcomes import Benchmark, Examinee, Question, outcome_table
from training.ranking import Integers, best_ranks, likeliest

ITEMS = 400  # drawn of a suite; each disturbed photo has to be encoded anew
AT = 10
Photos = Callable[[list[str]], list[str]]


def sample(items: pa.Table) -> pa.Table:
    """The items with the smallest ids, which are hashes: a choice that new products hardly change."""
    return items.sort_by("item_id").slice(0, ITEMS)


def _ways(examinee: Examinee) -> Iterator[tuple[str, Photos]]:
    """(name, what becomes of photos) of each way to be asked, undisturbed first."""
    yield "clean", lambda keys: keys
    for kind in KINDS:
        yield kind, lambda keys, kind=kind: examinee.disturbed(keys, kind)  # type: ignore[misc]


def score_search(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of R@10 from photo to title, one metric per way; detail: the rank."""
    asked = sample(items)
    titles = {key: place for place, key in enumerate(dict.fromkeys(items["title_key"].to_pylist()))}
    first = dict(zip(reversed(items["title_key"].to_pylist()), reversed(items["caption"].to_pylist()), strict=True))
    right: dict[str, set[int]] = {}
    for key, title in zip(items["image_key"].to_pylist(), items["title_key"].to_pylist(), strict=True):
        right.setdefault(key, set()).add(titles[title])
    gallery, keys = examinee.texts([first[title] for title in titles]), asked["image_key"].to_pylist()
    correct = [sorted(right[key]) for key in keys]
    return pa.concat_tables([
        _ranked("robustness_search", way, asked, best_ranks(examinee.images(seen(keys)), gallery, correct))
        for way, seen in _ways(examinee)
    ])  # fmt: skip


def score_compose(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of R@10 of composed queries whose photo is disturbed, one metric per way; detail: the rank."""
    asked = sample(items)
    gallery = examinee.gallery()
    places, photos = {key: place for place, key in enumerate(gallery)}, examinee.images(gallery)
    keys, conditions = asked["image_key"].to_pylist(), asked["condition"].to_pylist()
    try:
        own = np.array([places[key] for key in keys])
        answers = zip(keys, asked["targets"].to_pylist(), strict=True)
        right = [[places[target] for target in found if target != key] for key, found in answers]
    except KeyError as error:
        raise UserError(
            f"robustness_compose: photo {error} is not of the test split, so suite and dataset do not fit together. "
            "Run `dvc repro -f suites`."
        ) from None
    return pa.concat_tables([
        _ranked(
            "robustness_compose", way, asked,
            best_ranks(examinee.compose(seen(keys), conditions), photos, right, own),
        )
        for way, seen in _ways(examinee)
    ])  # fmt: skip


def score_attributes(items: pa.Table, examinee: Examinee) -> pa.Table:
    """Outcomes of accuracy, one metric per way and one without the title; detail: the chosen class's probability."""
    keys, titles = items["image_key"].to_pylist(), [title or None for title in items["title"].to_pylist()]
    made = [
        _accuracy(f"{way}_accuracy", items, examinee.attributes(seen(keys), titles)) for way, seen in _ways(examinee)
    ]
    untitled = _accuracy("no_title_accuracy", items, examinee.attributes(keys, [None] * len(keys)))
    return pa.concat_tables([*made, untitled])


def _accuracy(metric: str, items: pa.Table, answers: dict[str, tuple[list[str], npt.NDArray[np.float32]]]) -> pa.Table:
    tasks, labels = np.array(items["task"].to_pylist()), np.array(items["label"].to_pylist())
    correct, confidence = np.zeros(len(tasks), dtype=bool), np.zeros(len(tasks))
    for task in dict.fromkeys(tasks.tolist()):
        names, probabilities = answers[task]
        mine = np.flatnonzero(tasks == task)
        chosen, sure, clear = likeliest(np.asarray(probabilities, np.float64)[mine])
        correct[mine], confidence[mine] = (np.array(names)[chosen] == labels[mine]) & clear, sure
    return outcome_table("robustness_attributes", metric, items, correct, confidence)


def _ranked(benchmark: str, way: str, items: pa.Table, rank: Integers) -> pa.Table:
    return outcome_table(benchmark, f"{way}_R@{AT}", items, rank <= AT, rank.astype(np.float64))


BENCHMARKS = (
    Benchmark(
        name="robustness_search",
        endpoint="search",
        suite="retrieval.parquet",
        columns=("item_id", "image_key", "group", "caption", "title_key"),
        gate_metrics=(),
        score=score_search,
        question=lambda item: Question(right=item["caption"]),
        detail="rank",
    ),
    Benchmark(
        name="robustness_compose",
        endpoint="compose",
        suite="composed.parquet",
        columns=("item_id", "image_key", "group", "changed", "condition", "targets"),
        gate_metrics=(),
        score=score_compose,
        question=lambda item: Question(asked=f"the same, {item['condition']}"),
        detail="rank",
    ),
    Benchmark(
        name="robustness_attributes",
        endpoint="attributes",
        suite="attributes.parquet",
        columns=("item_id", "image_key", "group", "title", "task", "label"),
        gate_metrics=(),
        score=score_attributes,
        question=lambda item: Question(asked=item["title"], right=f"{item['task'].replace('_', ' ')}: {item['label']}"),
        detail="confidence",
        only=sample,
    ),
)
