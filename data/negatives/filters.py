"""The hard rule: no negative may be true of a product that shares the picture or the title.

A group's facts are everything its products' attributes and captions say. A replacement is refused if it overlaps with
any of those values, or is named in any of those captions; a negative is refused if it is one of those captions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data.negatives.captions import CAPTION_KINDS, Product, Reading, read
from data.negatives.lexicon import Term
from data.negatives.ontology import KINDS, METAL, METAL_PARTS, Kind, compatible, is_any, overlap
from data.text import fold

# Why there is no (further) negative, in the order in which a draft meets the filters.
REASONS = (
    "no_slot", "no_alternative", "symmetric", "balance", "repeated", "true_of_group", "named_in_group", "is_a_caption",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What is or may be true of a group: per kind all values overlapping with a stated one, and the captions."""

    closed: dict[Kind, frozenset[str]]
    unlimited: frozenset[Kind]  # kinds with a value such as "Multi", beside which nothing is certainly false
    values: dict[Kind, frozenset[str]]  # as `closed`, from the attributes alone
    captions: dict[str, Reading]  # by folded text

    @classmethod
    def of(cls, products: Iterable[Product]) -> Facts:
        stated: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        named: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        values: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        parts: dict[Kind, frozenset[str]] = dict.fromkeys(KINDS, frozenset())
        captions: dict[str, Reading] = {}
        for product in products:
            for kind in KINDS:
                values[kind] |= {product.value(kind)} - {None}  # type: ignore[arg-type]
            if product.article in METAL_PARTS:
                parts["colour"] = METAL
            for reading in map(read, filter(None, map(product.caption, CAPTION_KINDS))):
                captions.setdefault(fold(reading.caption), reading)
                for mention in reading.mentions:
                    _take(mention.term, product, stated, named)
        attributes = {kind: _closure(kind, values[kind]) | parts[kind] for kind in KINDS}
        closed = {kind: attributes[kind] | _closure(kind, stated[kind]) | named[kind] for kind in KINDS}
        unlimited = frozenset(kind for kind in KINDS if is_any(kind, stated[kind] | named[kind] | values[kind]))
        return cls(closed, unlimited, attributes, captions)

    def reject(self, term: Term) -> str | None:
        """Why `term` may not be put into a caption of this group; None if it is false of all its products."""
        if term.kind in self.unlimited or not self.closed[term.kind].isdisjoint(term.values):
            return "true_of_group"
        if any(term.padded in reading.padded and _names(reading, term) for reading in self.captions.values()):
            return "named_in_group"
        return None

    def could_be(self, term: Term, besides: Reading) -> bool:
        """Whether the product could be what `term` says, going by attributes and by every caption but `besides`."""
        if term.kind in self.unlimited or not self.values[term.kind].isdisjoint(term.values):
            return True
        own = fold(besides.caption)
        mentions = (m for key, reading in self.captions.items() if key != own for m in reading.mentions)
        return any(m.term.kind == term.kind and compatible(term.kind, m.term.values, term.values) for m in mentions)

    def is_caption(self, negative: str) -> bool:
        """Whether `negative` (clean) is, letter case aside, a caption of the group."""
        return fold(negative) in self.captions


def _names(reading: Reading, term: Term) -> bool:
    """Whether the words of `term` stand in the caption other than inside a longer word of its kind ("T-shirt")."""
    length = len(term.key)
    longer = [m for m in reading.mentions if m.term.kind == term.kind and m.last - m.first >= length]
    for place in range(len(reading.words) - length + 1):
        if all(reading.words[place + i].text == word for i, word in enumerate(term.key)) and not any(
            m.first <= place and place + length - 1 <= m.last for m in longer
        ):
            return True
    return False


def _closure(kind: Kind, values: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(overlap(kind, value) for value in values))


def _take(term: Term, product: Product, stated: dict[Kind, set[str]], named: dict[Kind, set[str]]) -> None:
    """A word of several meanings ("shoe") that fits the product's own value adds nothing beyond its meanings."""
    value = product.value(term.kind)
    fits = value is not None and compatible(term.kind, term.values, (value,))
    (named if len(term.values) > 1 and fits else stated)[term.kind].update(term.values)
