"""Captions from templates: `{base_colour} {article_type} for {gender}, {usage} wear`.

A value that is not there takes its words with it: those before it, up to the value or the punctuation mark before
them, and those after it, up to the next mark or, after the last value, the end.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# What of the words between two values belongs to the first: up to a mark, or with a closing bracket.
_TAIL = re.compile(r"[^,;:.()]*\)|[^,;:.()]*?(?=\s*[,;:.(])")
_MARKS = " ,;:."


@dataclass(frozen=True, slots=True)
class Part:
    """One value of a template and the words that stand or fall with it."""

    before: str
    name: str
    after: str


@functools.lru_cache(maxsize=64)
def parts(template: str) -> tuple[Part, ...]:
    """The parts of a template. Raises ValueError where it is malformed or names no value."""
    found: list[Part] = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        if {"{", "}"} & set(literal):
            raise ValueError("braces stand around the names of columns only")
        tail = _TAIL.match(literal) if name is not None else None
        after = literal if name is None else tail.group() if tail and found else ""
        if found and after:
            found[-1] = Part(found[-1].before, found[-1].name, after)
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise ValueError(f"{{{name}}} is not the name of a column")
        found.append(Part(literal[len(after) :], name, ""))
    if not found:
        raise ValueError("it names no column; write one in braces, such as {article_type}")
    return tuple(found)


def render(template: str, value: Callable[[str], str | None]) -> str:
    """The caption of a row; `value` gives a column's text, or None where there is none. Empty if all are missing.

    >>> render("{base_colour} {article_type} for {gender}, {usage} wear", {"article_type": "belts"}.get)
    'belts'
    """
    said = "".join(_said(template, value))
    return re.sub(r" {2,}", " ", said).lstrip(_MARKS).rstrip()


def _said(template: str, value: Callable[[str], str | None]) -> Iterator[str]:
    for part in parts(template):
        if text := value(part.name):
            yield f"{part.before}{text}{part.after}"
