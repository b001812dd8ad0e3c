"""The picture of a corpus: how long its captions are, how much of them keywords cover, the most frequent keywords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.pictures import FAINT, plain_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = "#3f6fb5"
FREQUENT = 20


def draw_corpus(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the PNG from the rows of `corpus.parquet`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained", facecolor="white")
    words, spans, keywords = figure.subplots(1, 3, width_ratios=(1, 0.8, 1.2))
    _histogram(words, (len(row["caption"].split()) for row in rows), "words per caption")
    _histogram(spans, (len(row["keywords"]) for row in rows), "keyword spans per caption")
    counts = Counter(keyword["text"] for row in rows for keyword in row["keywords"])
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT]
    names, values = [name for name, _ in top], [count for _, count in top]
    keywords.barh(names, values, color=BAR)
    for place, count in enumerate(values):
        keywords.text(count, place, f" {count:,}", va="center", fontsize=8, color=FAINT)
    keywords.set_ylim(len(top) - 0.4, -0.6)
    keywords.set_xticks([])
    plain_axis(keywords, f"the {FREQUENT} most frequent keyword spans")
    figure.suptitle(f"{len(rows):,} captions", fontsize=15, x=0.01, ha="left")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _histogram(axis: Axes, values: Iterable[int], title: str) -> None:
    counts = Counter(values)
    axis.bar(list(counts), list(counts.values()), color=BAR)
    plain_axis(axis, title)
