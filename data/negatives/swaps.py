"""NegCLIP's text negatives: two spans of one kind change places (Yuksekgonul et al. 2023, arXiv 2210.01936).

The kinds are noun chunks of more than two tokens, verb phrases, singular and plural nouns, adverbs and adjectives, as
spaCy tags them [FSC-CLIP, text_negatives_data.py, after the authors' generator]. A caption has at most one negative per
kind; an epoch draws one of them.

What differs from the publication's generator, and why:
- Spans are offsets of whole words, bounded by white space: "T-shirt" is one word, and no "wowoman" can come about.
- Titles are tagged in lower case: written In Title Case, every word would be a proper name, which is none of the kinds.
- Spans between which there is nothing, or only "and", "or", "with" and the like, stay: "Casual Black Shoe" says what
  "Black Casual Shoe" says, and so would a pair in any other order. So does a swap that spells another caption.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from data.negatives.edits import finish, seed_of
from data.negatives.relation import DETERMINERS, SYMMETRIC, exchange
from data.negatives.tagger import parse
from data.text import clean, fold, tokens

if TYPE_CHECKING:
    from spacy.tokens import Doc

Span = tuple[int, int]  # characters, from and to
KINDS = ("noun_chunk", "verb_phrase", "singular_noun", "plural_noun", "adverb", "adjective")
SCHEMA = pa.schema([
    ("caption", pa.string()), ("kind", pa.string()), ("negative", pa.string()), ("start", pa.int32()),
    ("end", pa.int32()), ("replacement", pa.string()),
])  # fmt: skip
_TAGS = {
    "NN": "singular_noun", "NNS": "plural_noun", "RB": "adverb", "RBR": "adverb", "RBS": "adverb", "JJ": "adjective",
    "JJR": "adjective", "JJS": "adjective",
}  # fmt: skip
_VERB_PHRASE = re.compile("(?:[ha]*v)+")  # helpers and adverbs before verbs: "is slowly running"
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Swap:
    """One negative of a caption: `caption[start:end]` becomes `replacement`."""

    caption: str
    kind: str
    negative: str
    start: int
    end: int
    replacement: str


def swap_table(captions: Iterable[str], seed: int) -> tuple[pa.Table, Counter[str]]:
    """The table of `swaps.parquet`, rows of one caption together, and how often a kind gave none for which reason."""
    distinct = sorted({clean(caption) for caption in captions})
    known = {fold(caption) for caption in distinct}
    tally: Counter[str] = Counter()
    rows = [
        swap
        for caption, doc in zip(distinct, parse(distinct), strict=True)
        for swap in swaps(caption, doc, seed, known, tally)
    ]
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA), tally


def swaps(caption: str, doc: Doc, seed: int, known: set[str], tally: Counter[str]) -> Iterator[Swap]:
    """At most one swap per kind, of two spans drawn by (seed, caption, kind); `known` are folded captions to avoid."""
    for kind, found in spans(caption, doc).items():
        pairs = [pair for pair in itertools.combinations(found, 2) if _differ(caption, *pair)]
        apart = [pair for pair in pairs if not _interchangeable(caption, *pair)]
        if not apart:
            tally["interchangeable" if pairs else "one_span"] += 1
            continue
        made = finish(caption, exchange(caption, *apart[seed_of(seed, caption, kind) % len(apart)]))
        if fold(made.negative) in known:
            tally["is_a_caption"] += 1
            continue
        tally["kept"] += 1
        yield Swap(caption, kind, made.negative, made.start, made.end, made.replacement)


def spans(caption: str, doc: Doc) -> dict[str, list[Span]]:
    """The spans of each kind that has any, in order, none overlapping."""
    words = _words(caption, doc)
    found: dict[str, list[Span]] = defaultdict(list)
    found["noun_chunk"] = [_whole(words, c.start_char, c.end_char) for c in doc.noun_chunks if len(c) > 2]
    letters = "".join(_letter(tag) for _, tag in words)
    for match in _VERB_PHRASE.finditer(letters):
        found["verb_phrase"].append((words[match.start()][0][0], words[match.end() - 1][0][1]))
    for span, tag in words:
        if tag in _TAGS:
            found[_TAGS[tag]].append(span)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def _words(caption: str, doc: Doc) -> list[tuple[Span, str]]:
    """Words between white space without the punctuation around them, each with the tag of its last token."""
    made = []
    for word in _WORD.finditer(caption):
        inside = [t for t in doc if word.start() <= t.idx < word.end() and not t.is_punct]
        if inside:
            made.append(((inside[0].idx, inside[-1].idx + len(inside[-1])), inside[-1].tag_))
    return made


def _whole(words: Sequence[tuple[Span, str]], start: int, end: int) -> Span:
    """From `start` to `end`, moved outwards to the ends of the words they stand in."""
    inside = [span for span, _ in words if span[0] < end and span[1] > start]
    return inside[0][0], inside[-1][1]


def _letter(tag: str) -> str:
    if tag.startswith("VB"):
        return "v"
    return "a" if tag.startswith("RB") else "h" if tag in ("MD", "TO") else "."


def _differ(caption: str, first: Span, second: Span) -> bool:
    return first[1] <= second[0] and fold(caption[slice(*first)]) != fold(caption[slice(*second)])


def _interchangeable(caption: str, first: Span, second: Span) -> bool:
    """Whether no word stands between the spans that would make their order matter."""
    return {word.text for word in tokens(caption[first[1] : second[0]])} <= SYMMETRIC | DETERMINERS
