"""Keyword spans of captions for language-only training, and captions in which a pseudo word stands for them.

After LinCIR (Gu et al., CVPR 2024, arXiv 2312.01998). A keyword span is a maximal run of nouns, proper nouns,
adjectives and determiners. Two ways of replacing it: `offsets` replaces exactly the characters of the span; `official`
replaces every occurrence of the span's string, which also hits letters inside other words ("c[$]t" for "cat").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from data.text import clean

MARK = "[$]"  # stands for the pseudo word; no cleaned caption contains a `$`
KEYWORD_POS = frozenset({"NOUN", "PROPN", "ADJ", "DET"})
KeywordMode = Literal["offsets", "official"]
_WORD = re.compile(r"\S+")


class Word(NamedTuple):
    """One token of a tagger: its offsets in the caption and its coarse part of speech."""

    start: int
    end: int
    pos: str


class Keyword(NamedTuple):
    """A keyword span: its offsets in the caption, and its words joined by single spaces."""

    start: int
    end: int
    text: str


def clean_caption(text: str | None) -> str:
    """A caption as the tagger and the encoder see it: `<PERSON>` is a person, lower case, no `$`, single spaces."""
    return clean((text or "").replace("<PERSON>", "person").lower().replace("$", ""))


def keyword_spans(caption: str, words: Iterable[Word]) -> list[Keyword]:
    """The maximal runs of words whose part of speech is one of `KEYWORD_POS`, from left to right."""
    runs: list[list[Word]] = []
    running = False
    for word in words:
        if word.pos not in KEYWORD_POS:
            running = False
            continue
        if not running:
            runs.append([])
        runs[-1].append(word)
        running = True
    return [Keyword(run[0].start, run[-1].end, " ".join(caption[w.start : w.end] for w in run)) for run in runs]


def keywords_of(row: Mapping[str, Any]) -> list[Keyword]:
    """The keywords of a row of `corpus.parquet`."""
    return [Keyword(**found) for found in row["keywords"]]


def is_random(caption: str, keywords: Sequence[Keyword], mode: KeywordMode) -> bool:
    """Whether masking this caption takes chance: it has no keyword, or one that `official` cannot find again."""
    return not keywords or (mode == "official" and any(k.text not in caption for k in keywords))


def mask(caption: str, keywords: Sequence[Keyword], mode: KeywordMode, chance: float = 0.0) -> str:
    """The caption with `MARK` for every keyword; `chance` in [0, 1) picks the random word where one is needed."""
    return _mask_official(caption, keywords, chance) if mode == "official" else _mask_offsets(caption, keywords, chance)


def _mask_offsets(caption: str, keywords: Sequence[Keyword], chance: float) -> str:
    if not keywords:
        words = list(_WORD.finditer(caption))
        chosen = words[int(chance * len(words))]
        keywords = [Keyword(*chosen.span(), chosen.group())]
    parts, done = [], 0
    for keyword in keywords:
        parts += [caption[done : keyword.start], MARK]
        done = keyword.end
    return "".join(parts) + caption[done:]


def _mask_official(caption: str, keywords: Sequence[Keyword], chance: float) -> str:
    working = caption
    for keyword in keywords:
        if keyword.text not in caption:
            return _random_word(caption, working, chance)
        working = working.replace(keyword.text, MARK)
    return working if keywords else _random_word(caption, working, chance)


def _random_word(caption: str, working: str, chance: float) -> str:
    words = caption.split()
    return working.replace(words[int(chance * len(words))], MARK)
