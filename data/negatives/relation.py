"""Relation edits: two arguments change places, where that changes the meaning.

Two constructions qualify:

- **Bound colours.** Two colours bound to different things: the product and a part of it ("White T-shirt with Dark Blue
  Stripes" → "Dark Blue T-shirt with White Stripes"), or the product and its brand ("Red Tape Men Black Shoe" → "Black
  Tape Men Red Shoe", a red shoe). Colours side by side ("Black & Red Shoes", "White Black Shoe") are symmetric.
- **Noun phrases across an asymmetric relation**, each with its determiner: "A man on a bench beside a dog" → "A bench
  on a man beside a dog". `and`, `or`, `with`, `near`, ... relate both sides alike, so a swap across them stays true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from data.negatives.captions import Product, Reading
from data.negatives.edits import Draft, Source
from data.negatives.lexicon import SHADES, Mention
from data.negatives.ontology import METAL, METAL_PARTS, compatible
from data.negatives.tagger import phrase_tags
from data.text import Token, fit_article, with_article

DETERMINERS = frozenset({"a", "an", "the", "one", "two", "three", "some", "his", "her", "its", "their"})
_ASYMMETRIC = frozenset({
    "on", "in", "under", "over", "above", "below", "behind", "inside", "into", "onto", "through", "holding", "wearing",
    "riding", "carrying", "eating", "chasing", "watching", "pulling", "pushing", "feeding", "covering",
})  # fmt: skip
SYMMETRIC = frozenset({
    "and", "or", "with", "near", "beside", "by", "of", "around", "next", "to", "between", "among", "against", "at",
    "along",
})  # fmt: skip
_RELATIONS = _ASYMMETRIC | SYMMETRIC
# Parts of a product that have a colour of their own; the colour just before one is bound to it.
_PARTS = frozenset({
    "stripe", "stripes", "striped", "dial", "strap", "lace", "laces", "rim", "frame", "lens", "sole", "collar",
    "sleeve", "sleeves", "piping", "tipping", "print", "prints", "check", "checks", "dots", "border", "trim", "logo",
    "stones", "plating", "pocket", "buckle", "heel", "lining", "thread",
})  # fmt: skip


def drafts(source: Source) -> Iterator[Draft | str]:
    """The swaps of a caption, or the reason why there is none ("symmetric", "true_of_group" or "no_slot")."""
    tags = phrase_tags(source.reading.caption) if source.product.in_general else None
    found = [*_colour_swaps(source), *_phrase_swaps(source.reading, tags)]
    swaps = [draft for draft in found if isinstance(draft, Draft)]
    yield from swaps or found[:1] or ["no_slot"]


def _colour_swaps(source: Source) -> Iterator[Draft | str]:
    colours = [m for m in source.reading.mentions if m.term.kind == "colour"]
    value = source.product.colour
    if len(colours) != 2 or value is None:
        return
    own = [m for m in colours if compatible("colour", m.term.values, (value,))]
    if len(own) != 1:
        return
    other = colours[1 - colours.index(own[0])]
    if not _bound_apart(source.reading.words, colours[0], colours[1], other):
        yield "symmetric"
    elif _metal_part(source.product, colours) or source.facts.could_be(other.term, besides=source.reading):
        yield "true_of_group"
    else:
        first, second = (_span(source.reading.words, mention) for mention in colours)
        yield exchange(source.reading.caption, first, second)


def _metal_part(product: Product, colours: Sequence[Mention]) -> bool:
    """A golden frame on a brown watch: the metal may well be called the watch's colour."""
    return product.article in METAL_PARTS and any(not METAL.isdisjoint(m.term.values) for m in colours)


def _bound_apart(words: Sequence[Token], first: Mention, second: Mention, other: Mention) -> bool:
    """Whether the two colours belong to different things: product and brand, or product and part."""
    between = {word.text for word in words[first.last + 1 : second.first]}
    if between <= {"and", "or"} | SHADES:
        return False
    brand = other is first and first.first == 0
    parts = [mention.last + 1 < len(words) and words[mention.last + 1].text in _PARTS for mention in (first, second)]
    return brand or (parts[0] != parts[1])


def _phrase_swaps(reading: Reading, tags: Mapping[int, str] | None) -> Iterator[Draft | str]:
    """Swaps across every relation; `tags` (by offset), where given, say which words can be of a noun phrase."""
    words = reading.words
    for place, word in enumerate(words):
        if word.text not in _RELATIONS:
            continue
        left, right = _phrase_before(words, place, tags), _phrase_after(reading, place, tags)
        if left is None or right is None:
            continue
        if word.text in SYMMETRIC:
            yield "symmetric"
        else:
            yield exchange(reading.caption, left, right)


def _phrase_before(words: Sequence[Token], place: int, tags: Mapping[int, str] | None) -> tuple[int, int] | None:
    """Characters of the noun phrase, determiner included, that ends just before token `place`."""
    for start in range(place - 1, -1, -1):
        text = words[start].text
        if text in _RELATIONS or not _nominal(words[start], tags, last=start == place - 1):
            return None
        if text in DETERMINERS:
            if start and words[start - 1].text in DETERMINERS:  # "the two teens"
                start -= 1
            return (words[start].start, words[place - 1].end) if text != words[place - 1].text else None
    return None


def _phrase_after(reading: Reading, place: int, tags: Mapping[int, str] | None) -> tuple[int, int] | None:
    """Characters of the noun phrase, determiner included, that begins just after token `place`."""
    words = reading.words
    if place + 2 >= len(words) or words[place + 1].text not in DETERMINERS:
        return None
    last = place + 1
    while last + 1 < len(words) and words[last + 1].text not in _RELATIONS:
        if reading.caption[words[last].end : words[last + 1].start].strip(" -"):
            break
        if not _nominal(words[last + 1], tags):
            break
        last += 1
    if last == place + 1 or not _nominal(words[last], tags, last=True):
        return None
    return words[place + 1].start, words[last].end


def _nominal(word: Token, tags: Mapping[int, str] | None, last: bool = False) -> bool:
    """Whether a word can stand in a noun phrase, or end one; anything can where there are no tags."""
    tag = tags.get(word.start, "") if tags is not None else "NN"
    return tag.startswith("NN") or (not last and tag in ("DT", "JJ", "CD", "PRP$", "VBN", "POS"))


def _span(words: Sequence[Token], mention: Mention) -> tuple[int, int]:
    """A colour's characters, with the shade before it."""
    shaded = mention.first > 0 and words[mention.first - 1].text in SHADES
    return (words[mention.first - 1].start if shaded else mention.start), mention.end


def exchange(caption: str, first: tuple[int, int], second: tuple[int, int]) -> Draft:
    """Swap two spans; a capital at the head of the caption stays at the head, and a/an follows its new word."""
    one, two = caption[slice(*first)], caption[slice(*second)]
    between = caption[first[1] : second[0]]
    if first[0] == 0 and one[:1].isupper() and two[:1].islower():
        one, two = one[:1].lower() + one[1:], two[:1].upper() + two[1:]
    start, end, replacement = with_article(caption, first[0], second[1], two + fit_article(between, one) + one)
    return Draft("swap", start, end, replacement)
