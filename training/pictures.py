"""Pages of photos with words beside them, drawn with Pillow: what a metric looks like on real products."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageOps

from data.images import decode_rgb
from data.params import UserError
from training.plots import BAD, GOOD

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PHOTO = (108, 144)  # width, height; catalog photos are 3:4, also those stored squashed to a square
GAP, FRAME, TEXT = 12, 4, 15
INK, GREY, PALE = "#202124", "#5f6368", "#dadce0"

Photos = Mapping[str, Image.Image]
Words = tuple[str, str]  # text, colour


@dataclasses.dataclass(frozen=True)
class Card:
    """One photo and lines of words to its right."""

    image_key: str
    lines: tuple[Words, ...]
    frame: str = PALE


def words(asked: str, right: str, wrong: str, note: str) -> tuple[Words, ...]:
    """The lines of a card: question, right answer, wrong answer (each only if there is one), and a note."""
    lines = ((asked, INK), (right and f"✓ {right}", GOOD), (wrong and f"✗ {wrong}", BAD), (note, INK))
    return tuple(line for line in lines if line[0])


@dataclasses.dataclass(frozen=True)
class Strip:
    """One query in words and a row of photos below it: (image_key, frame colour, words below)."""

    title: str
    photos: tuple[tuple[str, str, str], ...]


def load_photos(images: Path, keys: Iterable[str]) -> dict[str, Image.Image]:
    """The photos `keys` of the dataset's images.parquet, sized for a page. Raises `UserError` naming one it lacks."""
    wanted = sorted(set(keys))
    table = pq.read_table(images, columns=["image_key", "jpeg"], filters=[("image_key", "in", wanted)])
    found = dict(zip(table["image_key"].to_pylist(), table["jpeg"].to_pylist(), strict=True))
    for key in wanted:
        if key not in found:
            raise UserError(f"{images}: has no picture {key}. Build the dataset again (`dvc repro -f dataset`).")
    return {key: decode_rgb(found[key]).resize(PHOTO, Image.Resampling.BICUBIC) for key in wanted}


def cards_page(sections: Sequence[tuple[str, Sequence[Card]]], photos: Photos, path: Path) -> None:
    """Write a PNG of titled sections, each a grid of cards, three in a row."""
    columns, width, height = 3, 420, PHOTO[1] + 2 * FRAME
    rows = sum(-(-len(cards) // columns) for _, cards in sections)
    page = _Page(columns * (width + GAP) + GAP, rows * (height + GAP) + len(sections) * 40 + GAP)
    top = GAP
    for title, cards in sections:
        page.draw.text((GAP, top + 6), title, INK, font(19, bold=True))
        top += 40
        for start in range(0, len(cards), columns):
            for column, card in enumerate(cards[start : start + columns]):
                page.card(card, photos, GAP + column * (width + GAP), top, width)
            top += height + GAP
    page.save(path)


def strips_page(sections: Sequence[tuple[str, Sequence[Strip]]], photos: Photos, path: Path) -> None:
    """Write a PNG of titled sections, each a column of strips."""
    cell, height = PHOTO[0] + 2 * FRAME + GAP, 24 + PHOTO[1] + 2 * FRAME + 20 + GAP
    most = max((len(strip.photos) for _, strips in sections for strip in strips), default=1)
    rows = sum(len(strips) for _, strips in sections)
    page = _Page(max(760, most * cell + GAP), rows * height + len(sections) * 40 + GAP)
    top = GAP
    for title, strips in sections:
        page.draw.text((GAP, top + 6), title, INK, font(19, bold=True))
        top += 40
        for strip in strips:
            page.draw.text((GAP, top), strip.title, INK, font(TEXT))
            for place, (key, colour, below) in enumerate(strip.photos):
                page.photo(photos[key], GAP + place * cell, top + 24, colour)
                page.draw.text(
                    (GAP + place * cell, top + 26 + PHOTO[1] + 2 * FRAME),
                    below,
                    GREY if colour == PALE else colour,
                    font(12),
                )
            top += height
    page.save(path)


class _Page:
    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.draw = ImageDraw.Draw(self.image)

    def photo(self, photo: Image.Image, left: int, top: int, colour: str) -> None:
        self.image.paste(ImageOps.expand(photo, FRAME, colour), (left, top))

    def card(self, card: Card, photos: Photos, left: int, top: int, width: int) -> None:
        self.photo(photos[card.image_key], left, top, card.frame)
        x, y = left + PHOTO[0] + 2 * FRAME + GAP, top
        letters = int((width - PHOTO[0] - GAP) / (0.56 * TEXT))
        for text, colour in card.lines:
            for part in textwrap.wrap(text, letters, max_lines=3, placeholder=" …"):
                self.draw.text((x, y), part, colour, font(TEXT))
                y += TEXT + 4
            y += 4

    def save(self, path: Path) -> None:
        self.image.save(path, optimize=True)


@functools.cache
def font(size: int, bold: bool = False) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
