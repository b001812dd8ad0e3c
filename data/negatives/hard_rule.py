"""A second, brute-force reading of the hard rule, to check what the generator wrote.

It shares the word lists with the generator and nothing else: products are related by their own pictures and titles (not
by group numbers), words are found by regular expressions (not by tokens), values are compared pair by pair.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from data.negatives.lexicon import Lexicon, Term, seed
from data.negatives.ontology import COLUMN, METAL, METAL_PARTS, compatible
from data.text import clean, title_key

Row = Mapping[str, Any]


def violations(negatives: Iterable[Row], products: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """(what is wrong, row id) for every negative that breaks a rule.

    Args:
        negatives: rows of `negatives.parquet`, or items of the compositional suite (which carry no offsets).
        products: rows of the dataset's `products.parquet`, all splits.
    """
    own = {row["row_id"]: row for row in products}
    related = _related(products)
    values = {(kind, row[name]) for row in products for kind, name in COLUMN.items() if row[name]}
    words = _Words(seed().extended(values))
    for item in negatives:
        product = own[item["row_id"]]
        others = [own[row_id] for row_id in sorted(related[item["row_id"]])]
        for wrong in (*_malformed(item, product), *_true_of(item, others, words)):
            yield wrong, item["row_id"]


def _related(products: Sequence[Row]) -> dict[str, set[str]]:
    """For each row, the rows that share its picture or its title, itself included."""
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in products:
        for key in _keys(row):
            holders[key].add(row["row_id"])
    return {row["row_id"]: set().union(*(holders[key] for key in _keys(row))) for row in products}


def _keys(row: Row) -> list[tuple[str, str]]:
    title = title_key(row["title"])
    return [("picture", row["image_key"]), *([("title", title)] if title else [])]


def _malformed(item: Row, product: Row) -> Iterator[str]:
    caption, negative = item["caption"], item["negative"]
    said = product["title"] if item["caption_kind"] == "title" else product["derived_caption"]
    if caption != clean(said):
        yield "the caption is not the product's"
    if "start" in item:
        start, end = item["start"], item["end"]
        if caption[start:end] != item["original"]:
            yield "the offsets do not point at the original"
        if caption[:start] + item["replacement"] + caption[end:] != negative:
            yield "the negative differs outside the offsets"
    if re.search(r"\ba\s+[aeio]\w", negative, re.I) and not re.search(r"\ba\s+[aeio]\w", caption, re.I):
        yield "a/an does not fit"
    if sorted(_words(negative)) != sorted(_words(caption)) and item["edit"] == "swap":
        yield "a swap changed the words"


def _true_of(item: Row, others: Sequence[Row], words: _Words) -> Iterator[str]:
    negative = title_key(item["negative"])
    captions = [text for row in others for text in (row["title"], row["derived_caption"]) if text]
    if any(title_key(text) == negative for text in captions):
        yield "the negative is a caption of the group"
    if item["edit"] == "swap":
        yield from _swap_true_of(item, others, words)
        return
    term = words.put_in(item)
    if term is None:
        yield "the replacement is no known word"
        return
    if any(words.fits(term, row) for row in others):
        yield "the replacement may be true of the group"
    if any(words.names(text, term) for text in captions):
        yield "the replacement is named in a caption of the group"


def _swap_true_of(item: Row, others: Sequence[Row], words: _Words) -> Iterator[str]:
    """After a colour swap the product is said to have the colour that is not its own: true of none of the group?"""
    colours = [term for term in words.of("colour") if _pattern(term.text).search(item["caption"])]
    foreign = [t for t in colours if not any(words.fits(t, row) for row in others)]
    if colours and not foreign:
        yield "the swapped colour may be true of the group"


class _Words:
    """The words of a lexicon, found by regular expressions, the longest first."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._kinds: dict[str, list[Term]] = defaultdict(list)
        for term in sorted(lexicon.terms, key=lambda term: -len(term.text)):
            self._kinds[term.kind].append(term)

    def of(self, kind: str) -> list[Term]:
        return self._kinds[kind]

    def fits(self, term: Term, row: Row) -> bool:
        """Whether `term` may be said of the product's value, or of its buckle, case or frame."""
        if term.kind == "colour" and row["article_type"] in METAL_PARTS and not METAL.isdisjoint(term.values):
            return True
        value = row[COLUMN[term.kind]] if term.kind in COLUMN else None
        return value is not None and compatible(term.kind, term.values, self._lexicon.meanings(term.kind, value))

    def put_in(self, item: Row) -> Term | None:
        """The word that an edit put in: what the caption's frame leaves of the negative, without a repaired article."""
        caption, negative = item["caption"], item["negative"]
        for term in self.of(item["edit"]):
            for found in _pattern(term.text).finditer(negative):
                head, tail = negative[: found.start()], negative[found.end() :]
                bare = re.sub(r"\b(a)n?\s+$", r"\1", head, flags=re.I)
                if caption.endswith(tail) and (caption.startswith(head) or caption.lower().startswith(bare.lower())):
                    return term
        return None

    def names(self, text: str, term: Term) -> bool:
        """Whether `text` names `term` other than as part of a longer word of its kind ("shirt" in "T-shirt")."""
        if not _pattern(term.text).search(text):
            return False
        for longer in self.of(term.kind):
            if longer is not term and _pattern(term.text).search(longer.text):
                text = _pattern(longer.text).sub("_", text)
        return bool(_pattern(term.text).search(text))


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    words = r"[\s-]+".join(map(re.escape, re.findall(r"[\w']+", text)))
    return re.compile(rf"(?<![\w']){words}(?![\w'])", re.I)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
