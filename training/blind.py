"""The blind control: a text-only scorer that sees captions but no photo.

Where hard negatives read less naturally than captions, a language model alone picks the right one. What it achieves is
what a vision-language model may owe to text statistics (the known weakness of ARO and VL-CheckList), so it is reported
beside every compositional score, and a gain it shares does not count.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Iterable

from data.params import UserError

START, END = "<s>", "</s>"
_WORD = re.compile(r"\w+|[^\w\s]")


class BlindScorer:
    """Bigram language model with Witten-Bell interpolation down to a uniform distribution; no constant to tune.

    Raises `UserError` if there is no text to learn from.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for text in texts:
            words = _words(text)
            self._pairs.update(itertools.pairwise(words))
        self._words: collections.Counter[str] = collections.Counter()
        self._seen: collections.Counter[str] = collections.Counter()
        self._followers: collections.Counter[str] = collections.Counter()
        for (before, word), count in self._pairs.items():
            self._words[word] += count
            self._seen[before] += count
            self._followers[before] += 1
        self._total = self._words.total()
        if not self._total:
            raise UserError("the training split has no captions for the text-only control. Land more products.")

    def log_likelihood(self, text: str) -> float:
        """Natural logarithm of the probability of the whole text, its end included."""
        words = _words(text)
        return sum(math.log(self._probability(b, w)) for b, w in itertools.pairwise(words))

    def _probability(self, before: str, word: str) -> float:
        distinct = len(self._words)
        unigram = (self._words[word] + distinct / (distinct + 1)) / (self._total + distinct)
        if not self._seen[before]:
            return unigram
        followers = self._followers[before]
        return (self._pairs[before, word] + followers * unigram) / (self._seen[before] + followers)


def _words(text: str) -> list[str]:
    return [START, *_WORD.findall(text.lower()), END]
