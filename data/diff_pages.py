"""A dataset diff as people read it: diff.md and diff.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.pictures import FAINT, INK, LINE, plain_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREW, SHRANK, STILL = "#3f6fb5", "#b5483f", "#c9c9ce"
TOLD = 20  # words, and lines of the pictures
DETAILED = 3  # features whose values are drawn
LABEL = 70  # characters of a label
Row = Mapping[str, Any]


def markdown(page: Row) -> str:
    """The page of `data.diff.compare` as Markdown."""
    products, families = page["products"], page["families"]
    other = products.get("other_split")
    moved = [row["feature"] for row in page["shifts"] if row["moved"]]
    parts = [
        f"# {_cell(page['a'])} → {_cell(page['b'])}",
        f"{products['a']:,} → {products['b']:,} products: {products['added']:,} came, {products['removed']:,} went, "
        f"{products['changed']:,} changed" + (f", {other:,} changed their split" if other is not None else "") + ". "
        f"{families['a']:,} → {families['b']:,} families: {families['new']:,} are new, {families['gone']:,} gone.",
        f"**Moved, surest and farthest first: {', '.join(moved)}.**" if moved else "**Nothing moved beyond chance.**",
        "## Features",
        "Distance is total variation (0 equal, 1 disjoint); 95 of 100 versions dealt by chance stay below the third "
        "column. p is adjusted for the number of features (Holm).",
        _table(
            ("feature", "distance", "by chance", "p", "moved", "what changed most (points)"),
            [(r["feature"], f"{r['distance']:.3f}", f"{r['chance']:.3f}", f"{r['p']:.3f}", "yes" if r["moved"] else "",
              ", ".join(f"{_cell(v['value'])} {100 * v['change']:+.1f}" for v in r["values"][:4]))
             for r in page["shifts"]],
        ),
        "## Words",
        _words(page["words"]),
        "## Families",
        _table(("family of", "products before", "after", "points"),
               [(_cell(f["family"]), f["a"], f["b"], f"{100 * f['change']:+.2f}") for f in families["moved_most"]]),
    ]  # fmt: skip
    if page["numbers"]:
        parts += ["## Numbers of the records", _table(("of", "number", "before", "after", "change"), [
            (n["of"], n["number"], f"{n['a']:g}", f"{n['b']:g}", f"{n['change']:+g}") for n in page["numbers"]
        ])]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def draw(path: Path, page: Row) -> None:
    """Write the PNG: the features against chance, the values of those that moved most, and the words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 8), layout="constrained", facecolor="white")
    shifts, values, words = figure.subplots(1, 3, width_ratios=(1.1, 1, 0.8))
    _draw_shifts(shifts, page["shifts"])
    moved = [row for row in page["shifts"] if row["moved"]][:DETAILED]
    changes = [
        (f"{row['feature']}: {value['value']}", 100 * value["change"]) for row in moved for value in row["values"]
    ]
    _draw_changes(values, changes, "what changed most, in points of share")
    _draw_changes(
        words, [(row["word"], row["z"]) for row in page["words"][:TOLD]], "words of titles, z of the log-odds"
    )
    products = page["products"]
    figure.suptitle(
        _label(f"{page['a']} → {page['b']}: {products['a']:,} → {products['b']:,} products"), fontsize=15, x=0.01,
        ha="left",
    )  # fmt: skip
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _draw_shifts(axis: Axes, shifts: Sequence[Row]) -> None:
    names = [row["feature"] for row in shifts]
    axis.barh(
        [_label(name) for name in names],
        [row["distance"] for row in shifts],
        color=[GREW if row["moved"] else STILL for row in shifts],
    )
    for place, row in enumerate(shifts):
        axis.plot([row["chance"]] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.6)
    axis.set_ylim(len(names) - 0.4, -0.6)
    plain_axis(axis, "distance (total variation); the stroke is what chance reaches")


def _draw_changes(axis: Axes, changes: Sequence[tuple[str, float]], title: str) -> None:
    places = range(len(changes))
    sizes = [size for _, size in changes]
    axis.barh(places, sizes, color=[GREW if size > 0 else SHRANK for size in sizes])
    axis.set_yticks(places, [_label(name) for name, _ in changes])
    axis.axvline(0, color=LINE, linewidth=1)
    axis.set_ylim(max(len(changes), 1) - 0.4, -0.6)
    if not changes:
        axis.text(0.5, 0.5, "nothing beyond chance", transform=axis.transAxes, ha="center", color=FAINT)
    plain_axis(axis, title)


def _words(words: Sequence[Row]) -> str:
    if not words:
        return "No word moved beyond chance."
    grew, shrank = ([w for w in words if (w["z"] > 0) == up][:TOLD] for up in (True, False))
    lines = [
        f"{what}: " + ", ".join(f"{_cell(w['word'])} ({w['a']}→{w['b']})" for w in found) + "."
        for what, found in (("More frequent", grew), ("Less frequent", shrank)) if found
    ]  # fmt: skip
    return "\n\n".join([*lines, "In brackets, the products that have the word in their title."])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text of a catalog, which may hold anything, as plain Markdown in one line."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in flat)


def _label(text: str) -> str:
    """Text as matplotlib shows it: not as a formula, and not longer than fits."""
    return (text if len(text) <= LABEL else f"{text[: LABEL - 1]}…").replace("$", r"\$")
