"""Pages of an evaluation: the products a model finds and misses, the edits it sees and overlooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from training.benchmarks import catalog_retrieval, compositional
from training.outcomes import Examinee, cells, column
from training.pictures import INK, PALE, Card, Strip, cards_page, load_photos, strips_page
from training.plots import BAD, GOOD

SHOWN, CARDS, TOP = 5, 6, 5


def retrieval_page(suites: Path, dataset: Path, outcomes: pa.Table, examinee: Examinee, path: Path) -> None:
    """Titles found at rank 1 and titles missed furthest, each with its first photos, the correct ones framed green."""
    items = catalog_retrieval.BENCHMARK.items(suites).sort_by("item_id")
    rank = column(cells(outcomes)[catalog_retrieval.NAME, "t2i_R@1"], "detail")
    worst = [i for i in _distinct(items, np.argsort(-rank, kind="stable")) if rank[i] > 1][:SHOWN]
    found = _distinct(items, np.flatnonzero(rank == 1))
    best = [found[i] for i in np.linspace(0, len(found) - 1, min(SHOWN, len(found))).astype(int)]
    strips = {i: _strip(items, i, int(rank[i]), examinee) for i in [*best, *worst]}
    sections = [
        (title, [strips[i] for i in chosen])
        for title, chosen in (("Found: the right photo comes first", best), ("Missed furthest", worst))
        if chosen
    ]
    keys = {key for strip in strips.values() for key, _, _ in strip.photos}
    strips_page(sections, load_photos(dataset / "images.parquet", keys), path)


def _strip(items: pa.Table, index: int, rank: int, examinee: Examinee) -> Strip:
    gallery = list(dict.fromkeys(items["image_key"].to_pylist()))
    title = items["title_key"][index].as_py()
    correct = {
        key
        for key, other in zip(items["image_key"].to_pylist(), items["title_key"].to_pylist(), strict=True)
        if other == title
    }
    query = items["caption"][index].as_py()
    order = np.argsort(-(examinee.texts([query]) @ examinee.images(gallery).T)[0], kind="stable")[:TOP]
    shown = [(gallery[i], GOOD if gallery[i] in correct else PALE, f"{place + 1}") for place, i in enumerate(order)]
    if rank > TOP:
        shown.append((items["image_key"][index].as_py(), GOOD, f"correct: rank {rank:,}"))
    return Strip(query, tuple(shown))


def compositional_page(suites: Path, dataset: Path, outcomes: pa.Table, path: Path) -> None:
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
    keys = {card.image_key for _, cards in sections for card in cards}
    cards_page(sections, load_photos(dataset / "images.parquet", keys), path)


def _card(items: pa.Table, index: int, margin: float) -> Card:
    row = {name: items[name][index].as_py() for name in items.column_names}
    return Card(
        row["image_key"],
        (
            (f"✓ {row['caption']}", GOOD), (f"✗ {row['negative']}", BAD),
            (f"{row['edit_type']} ({row['edit']}): {margin:+.3f}", INK),
        ),
        frame=GOOD if margin > 0 else BAD,
    )  # fmt: skip


def _distinct(items: pa.Table, order: np.ndarray) -> list[int]:
    """`order` without repetitions of a product family: ten times the same shirt is one example."""
    groups = items["group"].to_pylist()
    first: dict[int, int] = {}
    for index in order.tolist():
        first.setdefault(groups[index], index)
    return list(first.values())
