"""Patterns of text that no catalog means to send: mended encodings gone wrong, prompts for language models, scripts.

Python's `re` and RE2 (pyarrow, and so pandas and Great Expectations) read all of them alike.
"""

from __future__ import annotations

import re

AROUND = 12  # characters shown on either side of a find

# UTF-8 bytes read as Latin-1 or Windows-1252: "cafÃ©", "Leviâ€™s", "Â£", a byte order mark or an emoji as letters. And
# text that was escaped for HTML and never put back: "Marks &amp; Spencer".
_SECOND = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
MOJIBAKE = f"[ÂÃ][{_SECOND}]|â[\u0080€][{_SECOND}]|ï»¿|ï¿½|ðŸ|Ã\u0192|&(?:amp|lt|gt|quot|apos|nbsp|#[0-9xa-f]{{2,6}});"
REPLACED = "\ufffd"  # a letter that was lost for good

# A Latin letter beside a Cyrillic or Greek one within a word: a brand spelled with one looks right and matches nothing.
_OTHER_SCRIPT = "\u0370-\u03ff\u0400-\u052f"
MIXED_SCRIPTS = f"[A-Za-z][{_OTHER_SCRIPT}]|[{_OTHER_SCRIPT}][A-Za-z]"

PROMPT = (
    r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b"
    r".{0,40}\b(?:previous|prior|above|earlier|preceding|all|any|your)\b"
    r".{0,40}\b(?:instructions?|prompts?|rules?|directions|guidelines|training)\b"
    r"|\b(?:system|developer|hidden|initial)[ _-]prompt\b"
    r"|\byou are (?:now )?an? .{0,40}\b(?:assistant|model|chatbot|agent)\b"
    r"|\b(?:act|behave|pretend|respond|answer) (?:as|only|like|with)"
    r" .{0,40}\b(?:assistant|model|chatbot|ai|json|yes|no)\b"
    r"|\b(?:reveal|print|repeat|leak)\b.{0,40}\b(?:instructions|prompt|system message|secrets?|password)\b"
    r"|<\|[a-z_]{1,20}\|>|\[/?inst\]|<</?sys>>|(?:^|\n)\s{0,4}(?:system|assistant|user|human)\s?:"
)
SCRIPT = (
    r"(?i)<\s{0,4}/?\s{0,4}(?:script|iframe|object|embed|svg|img|style|link|meta|base|form|body|html|math|video|audio)\b"
    r"|\b(?:java|vb)script\s{0,4}:|\bdata:(?:text/html|image/svg|application/)"
    r"|\bon(?:error|load|click|focus|blur|input|change|submit|toggle|mouse[a-z]{2,6}|key[a-z]{2,5})\s{0,4}="
    r"|\{\{|\}\}|\$\{|\{%|%\}|<%|%>|<\?(?:php|xml|=)"
)


def found(pattern: str, text: str) -> str:
    """The part of a text that the pattern found, with a few characters around it."""
    match = re.search(pattern, text)
    return "" if match is None else text[max(match.start() - AROUND, 0) : match.end() + AROUND]
