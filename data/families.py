"""The family that a title names: the same make and model whatever its colour, pattern, wearer or size of pack.

"Vans Men Navy Blue Versa Casual Shoes" and "Vans Black Versa Shoes" name one family. Of a title those words count that
say none of what the attribute columns say; two of them must be left, since one alone ("Puma") is a make and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from data.text import title_key, tokens

SAID = ("article_type", "sub_category", "master_category", "usage", "season", "gender")  # columns whose words go
LEAST = 2  # words that a family needs
# Wearers, patterns, packs, colours and the small words: they vary within a family. A list of its own, not that of
# data/vocabulary.py, which grows: another word here names other families, and products would change their splits.
_WORDS = """
men mens man women womens woman boys boy girls girl unisex kids kid ladies gents baby
printed print solid striped stripes stripe checked checks check plain assorted multi multicoloured
pack of set combo pair pcs piece and with for the a an in by to t shirt tshirt tee size
beige black blue bronze brown burgundy charcoal coffee copper cream fluorescent gold golden green grey khaki lavender
lime magenta maroon mauve melange metallic mushroom mustard navy nude off offwhite olive orange peach pink purple red
rose rust sea silver skin steel tan taupe teal turquoise white yellow
"""
_VARIES = frozenset(_WORDS.split())


def family_key(row: Mapping[str, Any]) -> str | None:
    """What the titles of a family have in common, or None for a title that names no family.

    Args:
        row: `title` and the columns of `SAID`, each text or missing.
    """
    title = title_key(_text(row["title"]))
    if title is None:
        return None
    said = _said(tuple(_text(row[name]) for name in SAID))
    words = {_bare(word.text) for word in tokens(title)}
    left = sorted(word for word in words if word and word not in _VARIES and said.isdisjoint(_forms(word)))
    if len(left) < LEAST:
        return None
    return f"{title_key(_text(row['article_type'])) or ''}: {' '.join(left)}"


@functools.lru_cache(maxsize=1 << 14)
def _said(values: tuple[str | None, ...]) -> frozenset[str]:
    """The words of a row's attributes, in all their forms."""
    return frozenset(form for value in values for word in tokens(value or "") for form in _forms(word.text))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _bare(word: str) -> str:
    return word.removesuffix("'s").replace("'", "")


def _forms(word: str) -> set[str]:
    """A word with and without the ending of the plural."""
    bare = _bare(word)
    return {bare, bare.removesuffix("s"), bare.removesuffix("es")}
