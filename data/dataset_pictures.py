"""The two pictures of a dataset: a contact sheet over its article types, and how its attributes are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from data.pictures import FAINT, INK, LINE, Line, Tile, draw_grid, load_photos
from data.splits import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_COLOURS = {"train": "#3f6fb5", "val": "#d9972b", "test": "#b5483f"}
SWATCHES = {
    "Black": "#1c1c1e", "White": "#ffffff", "Blue": "#3466c2", "Brown": "#7b4b2a", "Grey": "#8e8e93", "Red": "#cf2e2e",
    "Green": "#3a8d4d", "Pink": "#ee8fb0", "Purple": "#7d4aa5", "Yellow": "#f2cf3b", "Orange": "#ec8130",
    "Navy Blue": "#1f2a5a", "Grey Melange": "#a9a9ad", "Off White": "#f3f0e6", "Multi": "#b48ead", "Steel": "#8d99a6",
    "Charcoal": "#40444b", "Skin": "#e6bea0", "Mustard": "#d6a11d", "Rust": "#b0532a", "Coffee Brown": "#5a3b28",
    "Metallic": "#a8a9ad", "Burgundy": "#6d1530", "Rose": "#e3a0a8", "Nude": "#e3c4ad", "Mauve": "#b790b0",
    "Sea Green": "#2e8b6f", "Taupe": "#8b7d6f", "Mushroom Brown": "#9c8471", "Fluorescent Green": "#7df03a",
    "Lime Green": "#8fce2e", "Bronze": "#a5702d", "Copper": "#b87346", "Cream": "#f5ecd0", "Peach": "#f7bd9b",
    "Turquoise Blue": "#2fb6c4", "Silver": "#c3c6cb", "Gold": "#cda434", "Khaki": "#b3a16a", "Magenta": "#c5267f",
    "Lavender": "#b8a6d9",
}  # fmt: skip
SHEET = 50  # article types on the contact sheet


def draw_contact_sheet(products: pd.DataFrame, images: Path, path: Path) -> None:
    """One product of each of the most frequent article types, photo un-squashed to 3:4, with title and split."""
    ranked = products["article_type"].value_counts()
    order = sorted(ranked.index, key=lambda name: (-ranked[name], name))[:SHEET]
    chosen = [products[products["article_type"] == name].sort_values("row_id").iloc[0] for name in order]
    photos = load_photos(images, [row.image_key for row in chosen])
    tiles = [
        Tile(
            photos[row.image_key],
            (
                Line(f"{row.article_type} · {ranked[row.article_type]:,}", INK, 14, 1),
                Line(_name(row), FAINT, 12, 2),
            ),
            (row.split, SPLIT_COLOURS[row.split]),
        )
        for row in chosen
    ]
    draw_grid(
        path, tiles, columns=10, title="Contact sheet", tile=(166, 272), photo=(150, 200),
        subtitle=f"{len(products):,} products, {len(ranked)} article types; one product of each of the most frequent "
        f"{len(order)}, with the type's number of products",
    )  # fmt: skip


def draw_distributions(products: pd.DataFrame, path: Path) -> None:
    """Bars of splits, article types, colours, gender and usage, and the products per catalog year."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), layout="constrained", facecolor="white")
    axes = figure.subplot_mosaic(
        [["splits", "types", "colours"], ["gender", "types", "colours"], ["usage", "types", "colours"],
         ["year", "types", "colours"]], width_ratios=[1, 1.25, 1.25],
    )  # fmt: skip
    _bars(axes["splits"], products, "split", "products per split", order=list(SPLITS), by_split=True)
    _bars(axes["gender"], products, "gender", "gender", by_split=True)
    _bars(axes["usage"], products, "usage", "usage", by_split=True)
    _bars(axes["types"], products, "article_type", "article type (30 most frequent)", limit=30, by_split=True)
    _bars(axes["colours"], products, "base_colour", "base colour (30 most frequent)", limit=30)
    _years(axes["year"], products)
    axes["types"].legend(frameon=False, loc="lower right")
    figure.suptitle(
        f"{len(products):,} products in {products['family'].nunique():,} families", fontsize=15, x=0.01, ha="left"
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _bars(axis: Axes, products: pd.DataFrame, name: str, title: str, *, limit: int = 8, order: list[str] | None = None,
          by_split: bool = False) -> None:  # fmt: skip
    counts = products[name].value_counts()
    order = order or sorted(counts.index, key=lambda value: (-counts[value], value))[:limit]
    left = pd.Series(0, index=order)
    for split in SPLITS if by_split else (None,):
        part = products if split is None else products[products["split"] == split]
        widths = part[name].value_counts().reindex(order, fill_value=0)
        colours = SPLIT_COLOURS[split] if split else [_swatch(value) for value in order]
        edge = None if split else "#8a8a8e"
        axis.barh(order, widths, left=left, color=colours, edgecolor=edge, linewidth=0.6, label=split)
        left = left + widths
    for place, value in enumerate(order):
        axis.text(left[value], place, f" {left[value]:,}", va="center", fontsize=8, color=FAINT)
    axis.set_xlim(0, max([*left, 1]) * 1.13)
    _plain(axis, title)
    axis.set_ylim(max(len(order), 1) - 0.4, -0.6)


def _years(axis: Axes, products: pd.DataFrame) -> None:
    counts = products["year"].dropna().astype(int).value_counts().sort_index()
    labels = [f"’{year % 100:02d}" for year in counts.index]
    axis.bar(labels, counts, color="#7f9cc9")
    axis.set_ylim(0, max([*counts, 1]) * 1.15)
    _plain(axis, "catalog year")
    axis.set_yticks([])
    for place, count in enumerate(counts):
        axis.text(place, count, f"{count:,}", ha="center", va="bottom", fontsize=7, color=FAINT)


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.tick_params(length=0, labelsize=9)
    axis.set_xticks(axis.get_xticks() if title == "catalog year" else [])
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_color(LINE)
        axis.spines[side].set_visible(side == "left")


def _swatch(colour: str) -> str:
    return SWATCHES.get(colour, colour.lower() if " " not in colour else FAINT)


def _name(row: Any) -> str:
    """A product's title, or what else says what it is."""
    return next((text for text in (row.title, row.derived_caption) if isinstance(text, str)), "")
