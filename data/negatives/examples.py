"""A picture page of hard negatives: photos with their captions and, by colour, what each edit made of them."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.negatives.audit import Verdict, key_of
from data.negatives.edits import EDITS
from data.pictures import FAINT, INK, Line, Tile, draw_grid, load_photos

COLOURS = {"relation": "#7d4aa5", "attribute": "#b8561a", "object": "#2566a8", "action": "#3a8d4d"}
EDIT_ORDER = tuple(EDITS)
COLUMNS, ROWS, MANY = 3, 5, 4  # tiles across and down; negatives shown under one caption
WIDTH = 56  # characters of a caption that fit on a line of a tile

Row = Mapping[str, Any]


def draw_examples(
    path: Path, negatives: Iterable[Row], products: Mapping[str, Row], images: Path, title: str
) -> None:  # fmt: skip
    """Write the page: a fixed choice of products, rare edits first so that each kind is seen.

    Args:
        negatives: rows with row_id, caption_kind, caption, edit_type, edit and negative.
        products: rows of the dataset by row id.
        images: the dataset's `images.parquet`.
    """
    by_product: dict[str, list[Row]] = defaultdict(list)
    for row in negatives:
        by_product[row["row_id"]].append(row)
    chosen = _choose(by_product)
    photos = load_photos(images, [products[row_id]["image_key"] for row_id in chosen])
    tiles = [Tile(photos[products[row_id]["image_key"]], _lines(by_product[row_id])) for row_id in chosen]
    draw_grid(
        path, tiles, columns=COLUMNS, title=title, tile=(560, 236), photo=(150, 200), beside=True,
        subtitle="caption in black, hard negatives below it: orange attribute, blue object, purple relation, green "
        "action",
    )  # fmt: skip


def draw_verdicts(path: Path, verdicts: Sequence[Verdict], products: Mapping[str, Row], images: Path) -> None:
    """Write a page of judged negatives: up to half of them such as count as true, then some of each edit in turn."""
    order = sorted(verdicts, key=lambda verdict: key_of(verdict.row))
    chosen = [verdict for verdict in order if verdict.true][: COLUMNS * ROWS // 2]
    turns: list[int] = []
    seen: Counter[str] = Counter()
    for verdict in order:
        turns.append(seen[verdict.row["edit"]])
        seen[verdict.row["edit"]] += 1
    false = (order[n] for n in sorted(range(len(order)), key=turns.__getitem__) if not order[n].true)
    chosen += itertools.islice(false, COLUMNS * ROWS - len(chosen))
    photos = load_photos(images, [products[verdict.row["row_id"]]["image_key"] for verdict in chosen])
    tiles = [
        Tile(photos[products[verdict.row["row_id"]]["image_key"]], _verdict_lines(verdict),
             ("true", "#c0392b") if verdict.true else ("false", "#3a8d4d"))
        for verdict in chosen
    ]  # fmt: skip
    draw_grid(
        path, tiles, columns=COLUMNS, title="Audit: are the negatives true after all?", tile=(560, 236),
        photo=(150, 200), beside=True, subtitle="caption in black, negative in colour, below it who says it is true",
    )  # fmt: skip


def _verdict_lines(verdict: Verdict) -> list[Line]:
    row = verdict.row
    why = [f"{name.replace('_', ' ')}: {text}" for name, text in verdict.witnesses.items()]
    why += ["labelled by a person"] if verdict.label is not None else []
    return [
        Line(row["caption"], INK, 14, 3), Line(f"{row['edit']}:  {row['negative']}", COLOURS[row["edit_type"]], 14, 3),
        *(Line(text, FAINT, 12, 3) for text in why),
    ]  # fmt: skip


def _choose(by_product: Mapping[str, Sequence[Row]]) -> list[str]:
    """In turn one product that shows each edit, those with the most kinds of edit first."""
    short = [row_id for row_id, rows in by_product.items() if all(len(row["caption"]) <= WIDTH for row in rows)]
    order = sorted(short, key=lambda row_id: hashlib.sha256(row_id.encode()).hexdigest())
    order.sort(key=lambda row_id: -len({(row["caption_kind"], row["edit"]) for row in by_product[row_id]}))
    chosen: list[str] = []
    while len(chosen) < min(COLUMNS * ROWS, len(order)):
        for edit in EDIT_ORDER:
            fresh = (r for r in order if r not in chosen and any(row["edit"] == edit for row in by_product[r]))
            chosen += [row_id for row_id, _ in zip(fresh, range(1), strict=False)]
    return chosen[: COLUMNS * ROWS]


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines: list[Line] = []
    for kind in ("title", "derived"):
        part = [row for row in rows if row["caption_kind"] == kind]
        if not part:
            continue
        lines.append(Line(part[0]["caption"], INK, 14, 2))
        shown: dict[str, Row] = {}
        for row in part:
            shown.setdefault(row["edit"], row)
        for row in sorted(shown.values(), key=lambda row: EDIT_ORDER.index(row["edit"]))[:MANY]:
            lines.append(Line(f"{row['edit']}:  {row['negative']}", COLOURS[row["edit_type"]], 12, 2))
        lines.append(Line(" ", FAINT, 5, 1))
    return lines
