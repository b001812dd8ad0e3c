"""What all edits share: the caption at hand, its random draws, and a finished negative."""

from __future__ import annotations

import hashlib
import struct
from typing import Literal, NamedTuple

from data.negatives.captions import CaptionKind, Product, Reading
from data.negatives.filters import Facts
from data.negatives.lexicon import Mention, Term
from data.negatives.ontology import Kind
from data.text import apply, recase, with_article

EditType = Literal["relation", "attribute", "object", "action"]
EDIT_TYPES: tuple[EditType, ...] = ("relation", "attribute", "object", "action")  # the method's fixed order
EDITS: dict[str, EditType] = {  # an edit is called as the kind of word it exchanges
    "swap": "relation", "colour": "attribute", "gender": "attribute", "usage": "attribute", "season": "attribute",
    "material": "attribute", "pattern": "attribute", "part": "attribute", "article": "object", "thing": "object",
    "action": "action",
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
    """A proposed edit: `caption[start:end]` becomes `replacement`.

    `term` takes the place of `slot`; both are None for a swap. `balanced`: whether the draw keeps the words' frequency.
    """

    edit: str
    start: int
    end: int
    replacement: str
    slot: Mention | None = None
    term: Term | None = None
    balanced: bool = True


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


def seed_of(*parts: object) -> int:
    """64 bits from any parts, by a hash that tells ("ab", "c") from ("a", "bc")."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def uniforms(source: Source, edit: str, count: int) -> list[float]:
    """`count` numbers in [0, 1) that depend on the product's seed, the caption kind and the edit, on nothing else."""
    numbers: list[int] = []
    while len(numbers) < count:
        key = f"{source.seed}\0{source.caption_kind}\0{edit}\0{len(numbers)}".encode()
        numbers += _EIGHT.unpack(hashlib.blake2b(key, digest_size=64).digest())
    return [(number >> 11) * 2.0**-53 for number in numbers[:count]]


_EIGHT = struct.Struct(">8Q")


def replace(source: Source, slot: Mention, term: Term, balanced: bool) -> Draft:
    """`term` in the place of `slot`, in its letter case, with the a/an before it repaired."""
    caption = source.reading.caption
    word = recase(term.text, caption[slot.start : slot.end])
    return Draft(term.kind, *with_article(caption, slot.start, slot.end, word), slot, term, balanced)


def finish(caption: str, draft: Draft) -> Negative:
    """The draft as a negative; `caption[start:end] == original`, and `negative` differs from the caption only there."""
    return Negative(
        draft.edit, apply(caption, draft.start, draft.end, draft.replacement), draft.start, draft.end,
        caption[draft.start : draft.end], draft.replacement,
    )  # fmt: skip
