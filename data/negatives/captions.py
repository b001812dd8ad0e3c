"""What a product's captions say, and which mention an edit may change."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data.negatives.lexicon import Mention, find
from data.negatives.ontology import COLUMN, KINDS, Kind, compatible
from data.text import Token, clean, tokens

CaptionKind = Literal["title", "derived"]
CAPTION_KINDS: tuple[CaptionKind, ...] = ("title", "derived")


@dataclass(frozen=True, slots=True)
class Product:
    """What the generator needs of a dataset row. Attributes may be None."""

    row_id: str
    group: int
    title: str | None
    derived_caption: str
    colour: str | None
    article: str | None
    gender: str | None
    usage: str | None
    sub_category: str | None
    master_category: str | None

    @classmethod
    def of(cls, row: Mapping[str, object]) -> Product:
        """From a row of `products.parquet`."""
        values = {kind: row[column] for kind, column in COLUMN.items()}
        others = ("row_id", "group", "title", "derived_caption", "sub_category", "master_category")
        return cls(**values, **{name: row[name] for name in others})  # type: ignore[arg-type]

    def caption(self, kind: CaptionKind) -> str | None:
        """The cleaned caption, or None where the product has none."""
        text = self.title if kind == "title" else self.derived_caption
        return clean(text) or None if text else None

    def value(self, kind: Kind) -> str | None:
        """The attribute that mentions of `kind` are about."""
        value: str | None = getattr(self, kind)
        return value


@dataclass(frozen=True, slots=True)
class Reading:
    """A caption with its tokens and its mentions."""

    caption: str
    words: tuple[Token, ...]
    mentions: tuple[Mention, ...]
    padded: str  # token texts between single spaces, with one at either end


@functools.lru_cache(maxsize=1 << 16)
def read(caption: str) -> Reading:
    """Tokenise a caption and find its mentions; remembered, for derived captions repeat."""
    words = tuple(tokens(caption))
    return Reading(caption, words, find(caption), f" {' '.join(word.text for word in words)} ")


def slots(reading: Reading, product: Product, caption_kind: CaptionKind) -> dict[Kind, Mention]:
    """The mention of each kind that an edit may replace: the only one that names the product's own value.

    A kind has no slot if the caption names the value nowhere, twice (changing one mention would leave a true one), or
    as part of a longer word. A colour that begins a title is a brand ("Red Tape", "Black Coffee"), not a colour.
    """
    found = {}
    for kind in KINDS:
        value = product.value(kind)
        if value is None:
            continue
        about = [m for m in reading.mentions if m.term.kind == kind and compatible(kind, m.term.values, (value,))]
        rivals = [m for m in reading.mentions if m.term.kind == kind] if kind in ("article", "gender") else about
        if len(about) != 1 or len(rivals) != 1 or about[0].attached:
            continue
        if kind == "colour" and caption_kind == "title" and about[0].first == 0:
            continue
        found[kind] = about[0]
    return found
