"""What all edits share: the caption at hand, its random draws, and a finished negative."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from data.negatives.captions import CAPTION_KINDS, CaptionKind, Product, Reading
from data.negatives.filters import Facts
from data.negatives.lexicon import Mention, Term
from data.negatives.ontology import Kind
from data.text import apply, recase, with_article

EditType = Literal["relation", "attribute", "object", "action"]
EDIT_TYPES: tuple[EditType, ...] = ("relation", "attribute", "object", "action")  # the method's fixed order
EDITS: dict[str, EditType] = {
    "swap": "relation", "colour": "attribute", "gender": "attribute", "usage": "attribute", "article": "object",
}  # fmt: skip


class Source(NamedTuple):
    """One caption of one product, what an edit may change, what is true of its group, and the product's seed."""

    product: Product
    caption_kind: CaptionKind
    reading: Reading
    slots: dict[Kind, Mention]
    facts: Facts
    seed: int


class Draft(NamedTuple):
    """A proposed edit: `caption[start:end]` becomes `replacement`. `term` is the word it puts in, None for a swap."""

    edit: str
    start: int
    end: int
    replacement: str
    term: Term | None = None


class Negative(NamedTuple):
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
    """Uniform numbers in [0, 1) that depend on nothing but `state` and the parts it is made of (splitmix64)."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state

    def __next__(self) -> float:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        return (_mix(self._state) >> 11) * 2.0**-53


def seed_of(*parts: object) -> int:
    """64 bits from any parts, by a hash that tells ("ab", "c") from ("a", "bc")."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def draws_of(product_seed: int, caption_kind: CaptionKind, edit: str) -> Draws:
    """The draws of one edit of one caption of the product whose seed this is."""
    return Draws(_mix(product_seed ^ _EDIT_SEEDS[caption_kind, edit]))


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


_MASK = 0xFFFFFFFFFFFFFFFF
_EDIT_SEEDS = {(kind, edit): seed_of(kind, edit) for kind in CAPTION_KINDS for edit in EDITS}


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
