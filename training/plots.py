"""The interval plot that evaluations and verdicts share: one dot with its interval per line, labels at the left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

GOOD, BAD, OPEN, PLAIN, FAINT = "#1a7f37", "#c0392b", "#b7791f", "#1f4e79", "#9aa0a6"


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the plot, in percent or points. `heading` starts a group; `note` stands at the right."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    colour: str = PLAIN
    heading: str = ""
    marks: tuple[float, ...] = ()  # short vertical ticks on this line: a margin, a control


def intervals(
    lines: Sequence[Line], path: Path, *, title: str, xlabel: str, zero: bool = False, legend: str = ""
) -> None:
    """Draw `lines` top to bottom into a PNG. `zero` adds the line of no difference and keeps it in view."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _positions(lines)
    height = 1.5 + 0.34 * (max(rows) + 1)
    figure = Figure(figsize=(9.6, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if zero:
        axes.axvline(0, color=FAINT, linewidth=1, zorder=0)
    for line, y in zip(lines, rows, strict=True):
        axes.plot([line.low, line.high], [y, y], color=line.colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([line.value], [y], "o", color=line.colour, markersize=6.5)
        for mark in line.marks:
            axes.plot([mark, mark], [y - 0.32, y + 0.32], color=FAINT, linewidth=2, linestyle=(0, (2, 1)))
        if line.heading:
            axes.text(0, y - 0.78, line.heading, transform=axes.get_yaxis_transform(), fontweight="bold", va="center")
        axes.text(1.015, y, line.note, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(rows, [line.label for line in lines])
    axes.set_ylim(max(rows) + 0.7, -0.7 - (1 if lines[0].heading else 0))
    axes.set_xlabel(xlabel + (f"\n{legend}" if legend else ""))
    axes.set_title(title, loc="left", fontweight="bold", pad=10)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#eceff1")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _positions(lines: Sequence[Line]) -> list[float]:
    """One row per line, and a free row above each heading but the first."""
    rows, y = [], -1.0
    for index, line in enumerate(lines):
        y += 2.1 if line.heading and index else 1.0
        rows.append(y)
    return rows
