"""Catalog text in what people open: safe in spreadsheets, markdown, terminals and messages.

A catalog's text comes from outside. In a spreadsheet a field that begins with `=` is a formula, in markdown `![](...)`
fetches a picture from elsewhere, and in any of them a control character or a change of writing direction shows
something other than what is stored. Every report writes such text through this module; the rules that keep it out of
the dataset use the same patterns.
"""

from __future__ import annotations

import re
import unicodedata

# Character classes, to be used alone or within a larger pattern; RE2 (pyarrow) and `re` read them alike.
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # all but tab and line ends
REORDERING = "[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"  # bidi embeddings, overrides, isolates; tag characters
INVISIBLE = "[\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\ufeff\ufff9-\ufffb]"  # direction marks, zero widths

SHOWN = 200  # characters of a value in a message
_HIDDEN = re.compile(f"{CONTROL}|{REORDERING}|{INVISIBLE}|[\ud800-\udfff]")
_BREAKS = re.compile("[\t\n\r\u2028\u2029]+")
_FORMULA = re.compile(r"\s*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")  # the last four: full-width forms of = + - @
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?", re.IGNORECASE)


def visible(text: str) -> str:
    """`text` with what a reader cannot see or trust spelled out (`\\u202e`); tabs and line ends stay."""
    return _HIDDEN.sub(_spelled, text)


def quoted(text: str, limit: int = SHOWN) -> str:
    """A value for a message: on one line, nothing hidden, and at most `limit` characters with the number left out."""
    shown = visible(_BREAKS.sub(" ", text[:limit]))
    return shown if len(text) <= limit else f"{shown}… and {len(text) - limit:,} more characters"


def shortened(text: str, limit: int) -> str:
    """`text`, its middle left out where it is longer than `limit`: the beginning says what, the end the cure."""
    return text if len(text) <= limit else f"{text[: limit * 3 // 4]} … {text[-(limit // 4) :]}"


def csv_field(value: object) -> str:
    """A field of a csv file that a spreadsheet shows and never runs: text that would be a formula begins with `'`.

    Numbers stay numbers: `-0.5` is one, `-0.5+cmd()` is not. Source: OWASP, "CSV Injection".
    """
    text = visible("" if value is None else str(value))
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") else text


def markdown_cell(text: str) -> str:
    """A cell of a markdown table: one line, and neither markup, nor links, nor pictures fetched from elsewhere."""
    shown = visible(_BREAKS.sub(" ", text)).replace("\\", "\\\\")
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def id_key(text: str) -> str:
    """What two ids share that only differ by letter case or by how Unicode spells their letters (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
