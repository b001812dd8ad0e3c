"""An answer as a picture: the question above, the products it named below, best first."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageOps

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PHOTO = (210, 280)  # width, height: catalog photos are 3:4, also where they are stored squashed to a square
MARGIN, GAP, PAD = 36, 20, 14
CARD = (PHOTO[0] + 2 * PAD, PHOTO[1] + 122)
COLUMNS = 5
PAGE, PAPER, INK, QUIET, LINE, ACCENT = "#f4f5f7", "#ffffff", "#1f2328", "#6b7280", "#e2e5ea", "#2f6f6d"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One product: its photo (None if the dataset has none of it any more), rank from 1, score, title and id."""

    photo: Image.Image | None
    rank: int
    score: float
    title: str
    id: str


def draw(path: Path, question: str, asked: Image.Image | None, tiles: Sequence[Tile], footer: str) -> None:
    """Write a PNG of the question (words, and the picture asked with if any), the products, and who answered."""
    columns = max(1, min(COLUMNS, len(tiles)))
    rows = -(-len(tiles) // columns)
    head = 196 if asked else 104
    width = max(2 * MARGIN + columns * CARD[0] + (columns - 1) * GAP, 620)
    page = Image.new("RGB", (width, head + rows * (CARD[1] + GAP) + 48), PAGE)
    brush = ImageDraw.Draw(page)
    _header(page, brush, question, asked, width)
    best = max((tile.score for tile in tiles), default=1.0)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        corner = (MARGIN + column * (CARD[0] + GAP), head + row * (CARD[1] + GAP))
        page.paste(_card(tile, best), corner)
    brush.text((MARGIN, page.height - 36), footer, fill=QUIET, font=_font(15))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    page.save(partial, "PNG")
    partial.replace(path)


def _header(
    page: Image.Image, brush: ImageDraw.ImageDraw, question: str, asked: Image.Image | None, width: int
) -> None:
    left = MARGIN
    if asked:
        page.paste(ImageOps.pad(asked, (105, 140), color=PAPER), (MARGIN, 28))
        left += 105 + GAP
    brush.text((left, 26), "ASKED", fill=ACCENT, font=_font(13, bold=True))
    for number, line in enumerate(
        _wrapped(question, _font(27, bold=True), width - left - MARGIN, lines=2 if asked else 1)
    ):
        brush.text((left, 46 + 36 * number), line, fill=INK, font=_font(27, bold=True))


def _card(tile: Tile, best: float) -> Image.Image:
    card = Image.new("RGB", CARD, PAPER)
    brush = ImageDraw.Draw(card)
    brush.rectangle((0, 0, CARD[0] - 1, CARD[1] - 1), outline=LINE)
    if tile.photo:
        card.paste(tile.photo.resize(PHOTO, Image.Resampling.BICUBIC), (PAD, PAD))
    else:
        brush.text((CARD[0] / 2, PHOTO[1] / 2), "no photo in store/dataset", fill=QUIET, font=_font(14), anchor="mm")
    brush.rectangle((PAD, PAD, PAD + 30, PAD + 26), fill=ACCENT)
    brush.text((PAD + 15, PAD + 13), str(tile.rank), fill=PAPER, font=_font(15, bold=True), anchor="mm")
    below = PHOTO[1] + 2 * PAD
    for number, line in enumerate(_wrapped(tile.title, _font(15), PHOTO[0], lines=2)):
        brush.text((PAD, below + 20 * number), line, fill=INK, font=_font(15))
    bar = below + 50
    brush.rectangle((PAD, bar, PAD + PHOTO[0], bar + 5), fill=LINE)
    brush.rectangle(
        (PAD, bar, PAD + round(PHOTO[0] * max(0.0, min(1.0, tile.score / max(best, 1e-6)))), bar + 5), fill=ACCENT
    )
    brush.text((PAD, bar + 13), f"{tile.score:.3f}", fill=INK, font=_font(14, bold=True))
    brush.text((PAD + PHOTO[0], bar + 13), f"no. {tile.id}", fill=QUIET, font=_font(14), anchor="ra")
    return card


def _wrapped(text: str, font: FreeTypeFont, width: int, *, lines: int) -> list[str]:
    """At most `lines` lines of at most `width` pixels; what does not fit ends in an ellipsis."""
    made: list[str] = []
    rest = text.split()
    while rest and len(made) < lines:
        count = next((n for n in range(len(rest), 0, -1) if font.getlength(" ".join(rest[:n])) <= width), 1)
        made.append(" ".join(rest[:count]))
        rest = rest[count:]
    if made and (rest or font.getlength(made[-1]) > width):
        last = made[-1]
        while last and font.getlength(f"{last}…") > width:
            last = last[:-1]
        made[-1] = f"{last.rstrip()}…"
    return made


@functools.cache
def _font(size: int, bold: bool = False) -> FreeTypeFont:
    import matplotlib as mpl  # ships DejaVu Sans, which has the letters of most scripts
    from PIL import ImageFont

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)
