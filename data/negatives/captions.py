"""What a product's captions say, and which mention an edit may change."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data.negatives.lexicon import Lexicon, Mention, seed
from data.negatives.ontology import COLUMN, Kind, compatible, overlap
from data.negatives.tagger import confirmed
from data.schema import CATALOG
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
    season: str | None
    sub_category: str | None
    master_category: str | None
    catalog: str = CATALOG

    @classmethod
    def of(cls, row: Mapping[str, object]) -> Product:
        """From a row of `products.parquet`."""
        values = {kind: row[column] for kind, column in COLUMN.items()}
        others = ("row_id", "group", "title", "derived_caption", "sub_category", "master_category", "catalog")
        return cls(**values, **{name: row[name] for name in others})  # type: ignore[arg-type]

    def caption(self, kind: CaptionKind) -> str | None:
        """The cleaned caption, or None where the product has none."""
        text = self.title if kind == "title" else self.derived_caption
        return clean(text) or None if text else None

    def value(self, kind: Kind) -> str | None:
        """The attribute that mentions of `kind` are about; None also where there is no such column."""
        value: str | None = getattr(self, kind) if kind in COLUMN else None
        return value

    @property
    def in_general(self) -> bool:
        """Whether the caption is about whatever the picture shows, for the product has no article type."""
        return self.article is None


@dataclass(frozen=True, slots=True)
class Reading:
    """A caption with its tokens and its mentions."""

    caption: str
    words: tuple[Token, ...]
    mentions: tuple[Mention, ...]
    padded: str  # token texts between single spaces, with one at either end


@functools.lru_cache(maxsize=1 << 16)
def read(caption: str, lexicon: Lexicon | None = None) -> Reading:
    """Tokenise a caption and find its mentions; remembered, for derived captions repeat."""
    words = tuple(tokens(caption))
    mentions = (lexicon or seed()).find(caption, words)
    return Reading(caption, words, mentions, f" {' '.join(word.text for word in words)} ")


# Without an attribute only these may be edited, and only in captions that are not about a product: "a red bus" is no
# blue one. What an unknown product is called, or worn for, stays open.
_GENERAL = ("colour", "gender", "material", "pattern", "thing", "action")
_PRODUCT = ("material", "pattern", "part")


def slots(
    reading: Reading, product: Product, caption_kind: CaptionKind, lexicon: Lexicon | None = None
) -> dict[Kind, Mention]:
    """The mention of each kind that an edit may replace: the only one that names the product's own value.

    A kind has no slot if the caption names the value nowhere, twice (changing one mention would leave a true one), or
    as part of a longer word. A colour or material that begins a title is a brand ("Red Tape", "Cotton County"). Of a
    kind without attribute the slot is the first mention beside which the caption says nothing like it.
    """
    by_kind: dict[Kind, list[Mention]] = {}
    for mention in reading.mentions:
        by_kind.setdefault(mention.term.kind, []).append(mention)
    found = {}
    for kind, mentions in by_kind.items():
        value = product.value(kind)
        if value is not None:
            values = lexicon.meanings(kind, value) if lexicon else (value,)
            about = [m for m in mentions if compatible(kind, m.term.values, values)]
            rivals = mentions if kind in ("article", "gender") else about
            slot = about[0] if len(about) == len(rivals) == 1 else None
        elif kind in (_GENERAL if product.in_general else _PRODUCT) and product.master_category != "Personal Care":
            slot = _first_alone(reading, mentions)
        else:
            continue
        if slot is None or slot.attached:
            continue
        if kind in _BRANDS and caption_kind == "title" and slot.first == 0 and not product.in_general:
            continue
        found[kind] = slot
    return found


_BRANDS = ("colour", *_PRODUCT)


def _first_alone(reading: Reading, mentions: list[Mention]) -> Mention | None:
    """The first mention that is what it looks like, and that no other says the same of, nor leaves open."""
    for mention in mentions:
        facets = frozenset().union(*(overlap(mention.term.kind, value) for value in mention.term.values))
        others = (other for other in mentions if other is not mention)
        if all(facets.isdisjoint(other.term.values) for other in others) and confirmed(reading.caption, mention):
            return mention
    return None
