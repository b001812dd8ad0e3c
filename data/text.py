"""Catalog text: cleaning, tokens with character offsets, title keys, letter case and the article a/an.

Every edit of a caption goes through tokens and offsets, never through substring search, so "red" is not found in
"hundred" and a swap of "man" and "woman" cannot make a "wowoman".
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

# A word, with inner apostrophes ("Men's"); hyphens, "+" and "/" separate, so "T-shirt" is two tokens.
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'"})
# "an hour", "an MP3 player" but "a university", "a one-piece", "a euro": spelling and sound disagree.
_SILENT_H = ("heir", "honest", "honor", "honour", "hour")
_CONSONANT_SOUND = ("eu", "ewe", "once", "one", "ubiq", "unanim", "uni", "ura", "us", "ut", "uv")
_VOWEL_SOUND_ANYWAY = ("unim", "unin", "uns", "usher", "utter")
_ARTICLE_ENDS = frozenset("aAnN ")
_VOWEL_LETTERS = frozenset("AEFHILMNORSX")  # letters whose names begin with a vowel sound


class Token(NamedTuple):
    """One word: its text in lower case with straight apostrophes, and its offsets in the caption."""

    text: str
    start: int
    end: int


def clean(text: str) -> str:
    """Unicode NFC, runs of white space as one space, none at the ends; letter case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def title_key(title: str | None) -> str | None:
    """What makes two titles the same title: cleaned, case folded, apostrophes straight. None where there is none."""
    return fold(clean(title or "")) or None


def fold(text: str) -> str:
    """Cleaned text without its letter case and with straight apostrophes."""
    return text.translate(_APOSTROPHES).casefold()


def tokens(text: str) -> list[Token]:
    """The words of `text` in order; `text[t.start:t.end]` is the word as written."""
    return [Token(m.group().lower().translate(_APOSTROPHES), *m.span()) for m in _TOKEN.finditer(text)]


@functools.lru_cache(maxsize=1 << 14)
def recase(word: str, like: str) -> str:
    """`word` in the letter case of `like`: ALL CAPITALS, all lower case, or as `word` itself is written.

    A first capital alone is carried over to a lower-case `word`, not to one with capitals of its own ("T-shirt").
    """
    letters = [c for c in like if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return word.upper()
    if letters and all(c.islower() for c in letters):
        return word.lower()
    if letters and letters[0].isupper() and word.islower():
        return word[:1].upper() + word[1:]
    return word


def indefinite(word: str) -> str:
    """The indefinite article, "a" or "an", by the first sound of `word`."""
    low = word.lower()
    if re.match(r"[A-Z](?![a-z])", word) and (len(word) == 1 or not word.isalpha() or word.isupper()):
        return "an" if word[0] in _VOWEL_LETTERS else "a"
    if low.startswith(_SILENT_H):
        return "an"
    if low.startswith(_CONSONANT_SOUND) and not low.startswith(_VOWEL_SOUND_ANYWAY):
        return "a"
    return "an" if low[:1] in tuple("aeiou") else "a"


def with_article(caption: str, start: int, end: int, replacement: str) -> tuple[int, int, str]:
    """Widen an edit over the a/an before it, if that no longer fits. Returns (start, end, replacement)."""
    before = caption[:start]
    fitted = fit_article(before, replacement)
    if fitted == before:
        return start, end, replacement
    begin = re.search(r"\S+\s+$", before).start()  # type: ignore[union-attr]
    return begin, end, fitted[begin:] + replacement


def fit_article(before: str, word: str) -> str:
    """`before`, with the a/an that ends it (if one does) in the form that `word` asks for."""
    found = re.search(r"\b([Aa])[Nn]?(\s+)$", before) if before[-2:-1] in _ARTICLE_ENDS else None
    if not found or not word:
        return before
    article = indefinite(word)
    return before[: found.start()] + found.group(1) + article[1:] + found.group(2)


def apply(caption: str, start: int, end: int, replacement: str) -> str:
    """`caption` with the characters from `start` to `end` replaced."""
    return caption[:start] + replacement + caption[end:]
