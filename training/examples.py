"""Pages of an evaluation: what a model finds and misses, sees and overlooks. One page per benchmark."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pyarrow as pa

from training import disturbance
from training.benchmarks import attributes, catalog_retrieval, category, composed_retrieval, compositional, robustness
from training.outcomes import Benchmark, Examinee, cells, column
from training.pictures import INK, PALE, Card, Strip, cards_page, load_photos, strips_page, words
from training.plots import BAD, GOOD

SHOWN, CARDS, TOP = 5, 6, 5


def retrieval_page(suites: Path, dataset: Path, outcomes: pa.Table, examinee: Examinee, path: Path) -> None:
    """Titles found at rank 1 and titles missed furthest, each with its first photos, the correct ones framed green."""
    items = catalog_retrieval.BENCHMARK.items(suites).sort_by("item_id")
    rank = column(cells(outcomes)[catalog_retrieval.NAME, "t2i_R@1"], "detail")
    gallery = list(dict.fromkeys(items["image_key"].to_pylist()))
    photos = examinee.images(gallery)
    sharing = defaultdict(set)
    for key, title in zip(items["image_key"].to_pylist(), items["title_key"].to_pylist(), strict=True):
        sharing[title].add(key)

    def strip(index: int) -> Strip:
        query = items["caption"][index].as_py()
        order = np.argsort(-(examinee.texts([query]) @ photos.T)[0], kind="stable")
        correct = sharing[items["title_key"][index].as_py()]
        return Strip(query, _found([gallery[i] for i in order], correct, int(rank[index])))

    headings = ("Found: the right photo comes first", "Missed furthest")
    _best_and_worst(items, rank, headings, strip, dataset / "images.parquet", path)


def composed_page(suites: Path, dataset: Path, outcomes: pa.Table, examinee: Examinee, path: Path) -> None:
    """Wishes fulfilled at rank 1 and wishes missed furthest: the photo, then what is found for it."""
    items = composed_retrieval.BENCHMARK.items(suites).sort_by("item_id")
    rank = column(cells(outcomes)[composed_retrieval.NAME, "R@1"], "detail")
    gallery = examinee.gallery()
    photos = examinee.images(gallery)

    def strip(index: int) -> Strip:
        row = {name: items[name][index].as_py() for name in items.column_names}
        order = np.argsort(-(examinee.compose([row["image_key"]], [row["condition"]]) @ photos.T)[0], kind="stable")
        others = [gallery[i] for i in order if gallery[i] != row["image_key"]]
        asked = (row["image_key"], INK, "the photo")
        return Strip(f"the same, {row['condition']}", (asked, *_found(others, set(row["targets"]), int(rank[index]))))

    headings = ("Found: a right product comes first", "Missed furthest")
    _best_and_worst(items, rank, headings, strip, dataset / "images.parquet", path)


def _best_and_worst(
    items: pa.Table, rank: np.ndarray, headings: Sequence[str], strip: Callable[[int], Strip], images: Path, path: Path
) -> None:
    """Draw a strip for some items of rank 1 and for those of the highest ranks."""
    worst = [i for i in _distinct(items, np.argsort(-rank, kind="stable")) if rank[i] > 1][:SHOWN]
    found = _distinct(items, np.flatnonzero(rank == 1))
    best = [found[i] for i in np.linspace(0, len(found) - 1, min(SHOWN, len(found))).astype(int)]
    sections = [
        (title, [strip(i) for i in chosen]) for title, chosen in zip(headings, (best, worst), strict=True) if chosen
    ]
    keys = {key for _, strips in sections for made in strips for key, _, _ in made.photos}
    strips_page(sections, load_photos(images, keys), path)


def _found(ordered: Sequence[str], correct: AbstractSet[str], rank: int) -> tuple[tuple[str, str, str], ...]:
    """The first photos of a ranking, and the first correct one if it comes later."""
    shown = [(key, GOOD if key in correct else PALE, f"{place + 1}") for place, key in enumerate(ordered[:TOP])]
    if not correct & set(ordered[:TOP]):
        shown.append((next(key for key in ordered if key in correct), GOOD, f"correct: rank {rank:,}"))
    return tuple(shown)


def compositional_page(suites: Path, dataset: Path, outcomes: pa.Table, _examinee: Examinee, path: Path) -> None:
    """Captions told most surely from their negatives, and negatives preferred most surely."""
    items = compositional.BENCHMARK.items(suites).sort_by("item_id")
    margin = column(cells(outcomes)[compositional.NAME, "accuracy"], "detail")
    order = _distinct(items, np.argsort(margin, kind="stable"))
    wrong = [i for i in order if margin[i] <= 0][:CARDS]
    right = [i for i in reversed(order) if margin[i] > 0][:CARDS]
    sections = [
        (title, [_card(items, i, float(margin[i])) for i in chosen])
        for title, chosen in (("Told apart most clearly", right), ("The edited caption preferred most", wrong))
        if chosen
    ]
    _cards(sections, dataset / "images.parquet", path)


def classes_page(
    benchmark: Benchmark, suites: Path, dataset: Path, outcomes: pa.Table, examinee: Examinee, path: Path
) -> None:
    """Right answers and wrong answers the model was surest of, one of each task in turn."""
    items = benchmark.items(suites).sort_by("item_id")
    cell = cells(outcomes)[benchmark.name, "accuracy"]
    correct, sure = column(cell, "outcome"), column(cell, "detail")
    order = np.argsort(-sure, kind="stable")
    sections = [
        (title, [_answer(benchmark, items, i, float(sure[i]), examinee)
                 for i in _per_task(items, order[correct[order] == right])])
        for title, right in (("Right, and surest of it", 1), ("Wrong, and surest of it", 0))
        if (correct == right).any()
    ]  # fmt: skip
    _cards(sections, dataset / "images.parquet", path)


def _answer(benchmark: Benchmark, items: pa.Table, index: int, sure: float, examinee: Examinee) -> Card:
    row = {name: items[name][index].as_py() for name in items.column_names}
    names, probabilities = examinee.attributes([row["image_key"]], [row.get("title") or None])[row["task"]]
    chosen = names[int(probabilities[0].argmax())]
    question = benchmark.question(row)
    wrong = f"{row['task'].replace('_', ' ')}: {chosen}" if chosen != row["label"] else ""
    lines = words(question.asked, question.right, wrong, f"sure to {100 * sure:.0f} %")
    return Card(row["image_key"], lines, frame=BAD if wrong else GOOD)


def _per_task(items: pa.Table, order: np.ndarray) -> list[int]:
    """The first items of `order`, each of another family, no task more often than needed to fill the page."""
    tasks = items["task"].to_pylist()
    held: dict[str, list[int]] = defaultdict(list)
    for index in _distinct(items, order):
        held[tasks[index]].append(index)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(held[task] for task in sorted(held))))
    return [index for index in turns if index is not None][:CARDS]


def robustness_page(
    benchmark: Benchmark, suites: Path, dataset: Path, outcomes: pa.Table, _examinee: Examinee, path: Path
) -> None:
    """Photos as the model saw them, clean and disturbed: where a disturbance undid the answer, and where none did."""
    found = {
        metric.partition("_")[0]: cell for (name, metric), cell in cells(outcomes).items() if name == benchmark.name
    }
    right: np.ndarray = np.stack([column(found[way], "outcome") > 0 for way in ("clean", *disturbance.KINDS)], axis=1)
    steady, clean = right.min(axis=1), right[:, 0]
    rows = {row["item_id"]: row for row in benchmark.items(suites).to_pylist()}
    asked = pa.Table.from_pylist([rows[item_id] for item_id in found["clean"]["item_id"].to_pylist()])
    order = np.argsort(right.sum(1), kind="stable")
    chosen = {
        "Undone by a disturbance": _distinct(asked, order[(clean & ~steady)[order]])[:SHOWN],
        "Right all the same": _distinct(asked, order[steady[order]])[:SHOWN],
        "Wrong when clean": _distinct(asked, order[~clean[order]])[:SHOWN],
    }

    def strip(index: int) -> Strip:
        row = asked.slice(index, 1).to_pylist()[0]
        question, key = benchmark.question(row), row["image_key"]
        names: dict[str, str] = {"clean": key}
        for kind in disturbance.KINDS:
            names[kind] = disturbance.name(key, kind)
        frames = [GOOD if well else BAD for well in right[index]]
        shown = tuple((name, frame, way) for (way, name), frame in zip(names.items(), frames, strict=True))
        return Strip(question.right or question.asked, shown)

    sections = [(title, [strip(index) for index in places]) for title, places in chosen.items() if places]
    keys = sorted({asked["image_key"][index].as_py() for places in chosen.values() for index in places})
    photos = load_photos(dataset / "images.parquet", keys)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in disturbance.KINDS:
            names = disturbance.write(dataset / "images.parquet", keys, kind, Path(scratch) / kind)
            photos |= load_photos(Path(scratch) / kind, names)
    strips_page(sections, photos, path)


def _cards(sections: Sequence[tuple[str, Sequence[Card]]], images: Path, path: Path) -> None:
    keys = {card.image_key for _, cards in sections for card in cards}
    cards_page(sections, load_photos(images, keys), path)


def _card(items: pa.Table, index: int, margin: float) -> Card:
    row = {name: items[name][index].as_py() for name in items.column_names}
    note = f"{row['edit_type']} ({row['edit']}): {margin:+.3f}"
    lines = words("", row["caption"], row["negative"], note)
    return Card(row["image_key"], lines, frame=GOOD if margin > 0 else BAD)


def _distinct(items: pa.Table, order: np.ndarray) -> list[int]:
    """`order` without repetitions of a product family: ten times the same shirt is one example."""
    groups = items["group"].to_pylist()
    first: dict[int, int] = {}
    for index in order.tolist():
        first.setdefault(groups[index], index)
    return list(first.values())


PAGES: dict[str, tuple[str, Callable[[Path, Path, pa.Table, Examinee, Path], None]]] = {
    compositional.NAME: ("Captions told apart and confused", compositional_page),
    catalog_retrieval.NAME: ("Titles found and missed", retrieval_page),
    composed_retrieval.NAME: ("Wishes fulfilled and missed", composed_page),
    attributes.NAME: ("Attributes recognised and mistaken", functools.partial(classes_page, attributes.BENCHMARK)),
    category.NAME: ("Categories recognised and mistaken", functools.partial(classes_page, category.BENCHMARK)),
    **{
        benchmark.name: (f"Disturbed photos: {benchmark.endpoint}", functools.partial(robustness_page, benchmark))
        for benchmark in robustness.BENCHMARKS
    },
}
