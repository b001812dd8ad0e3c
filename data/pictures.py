"""Small pictures for people: photo tiles with captions, laid out in a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from data.images import decode_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colour = str
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INK, FAINT, PAPER, LINE = "#1d1d1f", "#6e6e73", "#ffffff", "#e3e3e6"


@dataclass(frozen=True)
class Line:
    """One paragraph under or beside a photo; wrapped to the tile's width. `size` in pixels."""

    text: str
    colour: Colour = INK
    size: int = 13
    lines: int = 2  # more are cut off with an ellipsis


@dataclass(frozen=True)
class Tile:
    """A photo with paragraphs. `chip` is a small coloured label on the photo: (text, colour)."""

    jpeg: bytes
    paragraphs: Sequence[Line] = field(default_factory=tuple)
    chip: tuple[str, Colour] | None = None


def load_photos(images: Path, keys: Iterable[str]) -> dict[str, bytes]:
    """Encoded photos by image key, from `images.parquet`; reads only the row groups that hold them."""
    wanted = pa.array(sorted(set(keys)), pa.string())
    found: dict[str, bytes] = {}
    source = pq.ParquetFile(images)
    for number in range(source.num_row_groups):
        names = source.read_row_group(number, columns=["image_key"])["image_key"]
        mask = pc.is_in(names, value_set=wanted)
        if pc.any(mask).as_py():
            part = source.read_row_group(number, columns=["image_key", "jpeg"]).filter(mask)
            found.update(zip(part["image_key"].to_pylist(), part["jpeg"].to_pylist(), strict=True))
    return found


def draw_grid(
    path: Path, tiles: Sequence[Tile], *, columns: int, title: str, subtitle: str, tile: tuple[int, int],
    photo: tuple[int, int], beside: bool = False,
) -> None:  # fmt: skip
    """Write a PNG of `tiles`; `tile` and `photo` are (width, height), text goes under the photo or `beside` it."""
    margin, head = 24, 84
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (2 * margin + columns * tile[0], head + rows * tile[1] + margin), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((margin, 20), title, fill=INK, font=font(26))
    pen.text((margin, 54), subtitle, fill=FAINT, font=font(14))
    for number, item in enumerate(tiles):
        left, top = margin + number % columns * tile[0], head + number // columns * tile[1]
        _paste(sheet, pen, item.jpeg, left, top, photo)
        if item.chip:
            _chip(pen, item.chip, left + 6, top + 6)
        x, y = (left + photo[0] + 14, top) if beside else (left, top + photo[1] + 8)
        width = tile[0] - (photo[0] + 32 if beside else 16)
        for line in item.paragraphs:
            y = _write(pen, line, x, y, width)
    sheet.save(path, optimize=True)


def font(size: int) -> Font:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(size)


def _paste(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, jpeg: bytes, left: int, top: int, size: tuple[int, int]
) -> None:
    sheet.paste(decode_rgb(jpeg).resize(size, Image.Resampling.LANCZOS), (left, top))
    pen.rectangle((left, top, left + size[0], top + size[1]), outline=LINE)


def _chip(pen: ImageDraw.ImageDraw, chip: tuple[str, Colour], left: int, top: int) -> None:
    text, colour = chip
    width = pen.textlength(text, font=font(11))
    pen.rounded_rectangle((left, top, left + width + 12, top + 18), radius=9, fill=colour)
    pen.text((left + 6, top + 9), text, fill=PAPER, font=font(11), anchor="lm")


def _write(pen: ImageDraw.ImageDraw, line: Line, x: int, y: int, width: int) -> int:
    face = font(line.size)
    for row in _wrap(pen, line, face, width):
        pen.text((x, y), row, fill=line.colour, font=face)
        y += round(line.size * 1.3)
    return y + 3


def _wrap(pen: ImageDraw.ImageDraw, line: Line, face: Font, width: int) -> list[str]:
    rows, row = [], ""
    for word in line.text.split():
        longer = f"{row} {word}".strip()
        if row and pen.textlength(longer, font=face) > width:
            rows.append(row)
            row = word
        else:
            row = longer
    rows.append(row)
    if len(rows) > line.lines:
        rows = [*rows[: line.lines - 1], f"{rows[line.lines - 1]} …"]
    return rows


def plain_axis(axis: Axes, title: str) -> None:
    """Title at the left, thin lines at the left and below, no ticks."""
    axis.set_title(title, loc="left", fontsize=11)
    axis.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_color(LINE)
        axis.spines[side].set_visible(side in ("left", "bottom"))
