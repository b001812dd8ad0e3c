"""What all edits share: the caption at hand, the draws of random numbers, and a finished negative."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data.negatives.captions import CaptionKind, Product, Reading
from data.negatives.filters import Facts
from data.negatives.lexicon import Mention, Term
from data.negatives.ontology import Kind
from data.text import apply, recase, with_article

EditType = Literal["relation", "attribute", "object", "action"]
EDIT_TYPES: tuple[EditType, ...] = ("relation", "attribute", "object", "action")  # the method's fixed order
EDITS: dict[str, EditType] = {
    "swap": "relation", "colour": "attribute", "gender": "attribute", "usage": "attribute", "article": "object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """One caption of one product, with what an edit may change and what is true of its group."""

    product: Product
    caption_kind: CaptionKind
    reading: Reading
    slots: dict[Kind, Mention]
    facts: Facts


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed edit: `caption[start:end]` becomes `replacement`. `term` is the word it puts in, None for a swap."""

    edit: str
    start: int
    end: int
    replacement: str
    term: Term | None = None


@dataclass(frozen=True, slots=True)
class Negative:
    """A draft that passed every filter."""

    edit: str
    negative: str
    start: int
    end: int
    original: str
    replacement: str

    @property
    def edit_type(self) -> EditType:
        return EDITS[self.edit]


class Draws:
    """Uniform numbers in [0, 1) that depend on nothing but the parts given: splitmix64 from a keyed hash."""

    __slots__ = ("_state",)

    def __init__(self, *parts: object) -> None:
        text = "\0".join(map(str, parts)).encode()
        self._state = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def replace(source: Source, slot: Mention, term: Term) -> Draft:
    """`term` in the place of `slot`, in its letter case, with the a/an before it repaired."""
    caption = source.reading.caption
    word = recase(term.text, caption[slot.start : slot.end])
    return Draft(term.kind, *with_article(caption, slot.start, slot.end, word), term)


def finish(caption: str, draft: Draft) -> Negative:
    """The draft as a negative; `caption[start:end] == original`, and `negative` differs from the caption only there."""
    return Negative(
        draft.edit, apply(caption, draft.start, draft.end, draft.replacement), draft.start, draft.end,
        caption[draft.start : draft.end], draft.replacement,
    )  # fmt: skip
