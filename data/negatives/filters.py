"""The filters that a draft must pass, in the order of ce_clip.md 4.4, and the facts of a group.

The hard rule: no negative may be true of a product that shares the picture or the title. A group's facts are everything
its products' attributes and captions say. A replacement is refused if it overlaps with any of those values, or is named
in any of those captions; a negative is refused if it is one of those captions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from data.negatives.captions import CAPTION_KINDS, Product, Reading, read
from data.negatives.lexicon import Lexicon, Mention, Term, seed
from data.negatives.ontology import COLUMN, METAL, METAL_PARTS, Kind, compatible, is_any
from data.text import fold

# Why there is no (further) negative, in the order in which a draft meets the filters.
REASONS = (
    "no_slot", "no_alternative", "repeated",  # nothing to edit, nothing false to put there, or drawn before
    "identity", "lemma", "thesaurus", "named_in_group",  # the same word, its inflection, a synonym or general word
    "symmetric",  # a swap across a relation that holds both ways
    "grammar", "implausible",
    "true_of_group", "is_a_caption",  # entailed by attributes or captions
    "balance",
)  # fmt: skip
_EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is or may be true of a group: per kind all values overlapping with a stated one, and the captions."""

    closed: dict[Kind, frozenset[str]]
    unlimited: frozenset[Kind]  # kinds with a value such as "Multi", beside which nothing is certainly false
    values: dict[Kind, frozenset[str]]  # as `closed`, from the attributes alone
    captions: dict[str, Reading]  # by folded text

    @classmethod
    def of(cls, products: Iterable[Product], lexicon: Lexicon | None = None) -> Facts:
        lexicon = lexicon or seed()
        stated: dict[Kind, set[str]] = defaultdict(set)
        named: dict[Kind, set[str]] = defaultdict(set)
        values: dict[Kind, set[str]] = defaultdict(set)
        parts: dict[Kind, frozenset[str]] = {}
        captions: dict[str, Reading] = {}
        for product in products:
            for kind in COLUMN:
                if (value := product.value(kind)) is not None:
                    values[kind].add(value)
            if product.article in METAL_PARTS:
                parts["colour"] = METAL
            for caption in filter(None, map(product.caption, CAPTION_KINDS)):
                reading = read(caption, lexicon)
                captions.setdefault(fold(reading.caption), reading)
                for mention in reading.mentions:
                    _take(mention.term, product, lexicon, stated, named)
        kinds = {*stated, *named, *values, *parts}
        attributes = {kind: lexicon.closure(kind, values[kind]) | parts.get(kind, _EMPTY) for kind in kinds}
        closed = {kind: attributes[kind] | lexicon.closure(kind, stated[kind]) | named[kind] for kind in kinds}
        unlimited = frozenset(kind for kind in kinds if is_any(kind, stated[kind] | named[kind] | attributes[kind]))
        return cls(closed, unlimited, attributes, captions)

    def is_true(self, term: Term) -> bool:
        """Whether `term` is, or may be, true of a product of this group."""
        return term.kind in self.unlimited or not self.closed.get(term.kind, _EMPTY).isdisjoint(term.values)

    def names(self, term: Term) -> bool:
        """Whether a caption of the group uses the words of `term`."""
        return any(term.padded in reading.padded and _names(reading, term) for reading in self.captions.values())

    def could_be(self, term: Term, besides: Reading) -> bool:
        """Whether the product could be what `term` says, going by attributes and by every caption but `besides`."""
        if term.kind in self.unlimited or not self.values.get(term.kind, _EMPTY).isdisjoint(term.values):
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


def _take(
    term: Term, product: Product, lexicon: Lexicon, stated: dict[Kind, set[str]], named: dict[Kind, set[str]]
) -> None:
    """A word of several meanings ("shoe") that fits the product's own value adds nothing beyond its meanings."""
    value = product.value(term.kind)
    several = len(term.values) > 1 and value is not None
    fits = several and compatible(term.kind, term.values, lexicon.meanings(term.kind, value))  # type: ignore[arg-type]
    (named if fits else stated)[term.kind].update(term.values)


def grammar(reading: Reading, slot: Mention, term: Term) -> bool:
    """Whether the caption's other words agree with `term` in the place of `slot`.

    Number and tense are kept by exchanging like forms, and a/an is repaired; left are pronouns, which say "her" of a
    woman, and the determiner before a word that came without one ("a jeans").
    """
    if term.kind == "gender" and any(word.text in _PRONOUNS for word in reading.words):
        return False
    return slot.first == 0 or reading.words[slot.first - 1].text not in _DETERMINERS.get(term.form, ())


_PRONOUNS = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself"})
_DETERMINERS = {  # of the other number
    "plural": frozenset({"a", "an", "one", "this", "that", "each", "every", "another"}),
    "singular": frozenset({"two", "three", "four", "five", "six", "many", "several", "these", "those", "few", "both"}),
}
