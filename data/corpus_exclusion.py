"""Which captions say what an exam says: the same text, the same words in another order, or a long run of its words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from data.keywords import clean_caption
from data.text import title_key, tokens

RUN = 8  # words in a row that no two captions share by chance
Likeness = Literal["same_text", "same_words", "shared_run"]
LIKENESSES: tuple[Likeness, ...] = ("same_text", "same_words", "shared_run")


class Exam:
    """The texts that a corpus must not hold."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: set[str] = set()
        self._words: set[frozenset[str]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            key, words = _key(text), _words(text)
            if key:
                self._texts.add(key)
            if words:
                self._words.add(frozenset(words))
                self._runs |= _runs(words)

    def __len__(self) -> int:
        return len(self._texts)

    def likeness(self, caption: str) -> Likeness | None:
        """What `caption` has in common with a text of the exam, or None. Letter case and punctuation do not matter."""
        words = _words(caption)
        if _key(caption) in self._texts:
            return "same_text"
        if words and frozenset(words) in self._words:
            return "same_words"
        return "shared_run" if not _runs(words).isdisjoint(self._runs) else None


def overlaps(captions: Iterable[str], texts: Iterable[str]) -> list[str]:
    """The captions that say what one of `texts` says, sorted: the exclusion looked at from the other side.

    An index of the corpus is asked for every text of the exam, so a text that the exclusion forgot is found here.
    """
    holders: dict[object, set[str]] = {}
    for caption in captions:
        for mark in _marks(caption):
            holders.setdefault(mark, set()).add(caption)
    found: set[str] = set()
    for text in texts:
        for mark in _marks(text):
            found |= holders.get(mark, set())
    return sorted(found)


def _marks(text: str) -> set[object]:
    """Two texts are alike in the sense of `Exam.likeness` if they share one of these."""
    words = _words(text)
    marks: set[object] = {*_runs(words)}
    if words:
        marks.add(frozenset(words))
    return marks | ({key} if (key := _key(text)) else set())


def _key(text: str) -> str | None:
    return title_key(clean_caption(text))


def _words(text: str) -> list[str]:
    return [word.text for word in tokens(clean_caption(text))]


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
