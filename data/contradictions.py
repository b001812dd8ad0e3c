"""Whether a title names another colour, wearer, kind of article or season than the row's attributes say.

Only values that the word lists know are judged, and a contradiction needs a word that cannot be true beside the
attribute (data/negatives/ontology.py says what can): unknown values are another rule's business.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from data import colours
from data.vocabulary import ARTICLE_TYPES, GENDERS

_SEASONS = {"spring": "warm", "summer": "warm", "fall": "cold", "autumn": "cold", "winter": "cold"}  # half-years
_SEASON_WORDS = re.compile(rf"\b({'|'.join(_SEASONS)})\b")


@dataclass(frozen=True)
class About:
    """One attribute: the columns that `find` takes, the title first, and the words by which the title contradicts."""

    columns: tuple[str, ...]
    find: Callable[..., str | None]


def gender(title: str, value: str) -> str | None:
    """The wearers that a title names where none of them can be `value`: "Men Blue Shirt" for women."""
    return _other("gender", title, value) if value in GENDERS else None


def article(title: str, value: str) -> str | None:
    """Likewise articles. Some finds are ways of speaking: "Pepe Jeans" is a brand, "3/4 Pants" are shorts."""
    return _other("article", title, value) if value in ARTICLE_TYPES else None


def season(title: str, value: str) -> str | None:
    """A season of the other half of the year; shops call one collection "fall" or "winter" as they like."""
    half = _SEASONS.get(value.lower())
    named = _SEASON_WORDS.findall(title.lower()) if half else []
    return ", ".join(dict.fromkeys(named)) or None if all(_SEASONS[word] != half for word in named) else None


def _other(kind: str, title: str, value: str) -> str | None:
    from data.negatives.ontology import compatible

    named = [(text, values) for of, text, values in _named(title) if of == kind]
    if any(compatible(kind, values, (value,)) for _, values in named):
        return None
    return ", ".join(dict.fromkeys(text for text, _ in named)) or None


@functools.lru_cache(maxsize=1 << 16)
def _named(title: str) -> tuple[tuple[str, str, frozenset[str]], ...]:
    """(kind, word, the catalog values it may stand for) of everything a title names."""
    from data.negatives.lexicon import find

    return tuple((m.term.kind, m.term.text, m.term.values) for m in find(title))


ABOUT = {
    "colour": About(("title", "base_colour", "master_category"), colours.contradiction),
    "gender": About(("title", "gender"), gender),
    "article": About(("title", "article_type"), article),
    "season": About(("title", "season"), season),
}
