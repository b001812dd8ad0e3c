"""Colours that a title names, by whole words, and whether they contradict the colour column."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from data.vocabulary import AMBIGUOUS_COLOURS, COLOUR_FAMILIES

_WORDS = re.compile(r"[a-z]+")
_DIAL = re.compile(r"\b[a-z]+(-toned)?[ -]+dial\b")  # the colour of a watch's face, not of the watch
_MANY = ("multi", "na", "")  # columns that no title can contradict


def named_colours(title: str) -> list[str]:
    """Colours named in a title, in order, the longest name first ("navy blue" is one colour, "scored" none)."""
    words = _WORDS.findall(_DIAL.sub(" ", title.lower()))
    found, i = [], 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        name = pair if pair in _families() else words[i]
        if name in _families():
            found.append(name)
        i += len(name.split())
    return found


def contradiction(title: str, base_colour: str, department: str) -> str | None:
    """The colours by which `title` contradicts `base_colour`, or None.

    A contradiction needs at least one plain colour in the title and no colour of the column's family. Personal care is
    left out: there a colour is a scent, an ingredient or the name of a shade.
    """
    colour = base_colour.lower()
    if colour in _MANY or colour not in _families() or department == "Personal Care":
        return None
    named = named_colours(title)
    if any(_related(name, colour) for name in named):
        return None
    plain = [name for name in named if name not in AMBIGUOUS_COLOURS]
    return ", ".join(_distinct(plain)) or None


def _related(one: str, other: str) -> bool:
    return bool(_families()[one] & _families()[other])


@functools.cache
def _families() -> dict[str, frozenset[str]]:
    names = {name for members in COLOUR_FAMILIES.values() for name in members}
    return {name: frozenset(f for f, members in COLOUR_FAMILIES.items() if name in members) for name in names}


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
