"""How plausible a text is in place: a trigram model of training captions, by stupid backoff (Brants et al. 2007).

An edit is implausible if the words around it grow rarer by more than `limit` nats a word, or more usual by as much: a
reader without the picture would pick out the one as he would the other. Being symmetric, the test refuses v → w in a
context exactly where it refuses w → v, which keeps the balance of vocabulary.py.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from data import schema
from data.params import UserError
from data.text import clean, title_key, tokens

BACKOFF = math.log(0.4)
Words = tuple[str, ...]
_EDGE = "\n"  # before the first word and after the last


class Trigrams:
    """Counts and log probabilities of words, pairs and triples; a text that repeats counts every time."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._one: Counter[str] = Counter()
        self._two: Counter[tuple[str, str]] = Counter()
        self._three: Counter[tuple[str, str, str]] = Counter()
        for text in texts:
            padded = [_EDGE, _EDGE, *(token.text for token in tokens(text)), _EDGE]
            self._one.update(padded[1:])
            self._two.update(itertools.pairwise(padded))
            self._three.update(zip(padded, padded[1:], padded[2:], strict=False))
        self._total = self._one.total() + 1
        self._log_three = {key: math.log(count / self._two[key[:2]]) for key, count in self._three.items()}
        self._log_two = {key: BACKOFF + math.log(count / self._one[key[0]]) for key, count in self._two.items()}
        self._log_one = {key: 2 * BACKOFF + math.log((count + 0.5) / self._total) for key, count in self._one.items()}
        self._unseen = 2 * BACKOFF + math.log(0.5 / self._total)

    def score(self, before: Words, words: Words, after: Words) -> float:
        """Mean log probability, in nats, of `words` and of the two words after them.

        Args:
            before: all words before; `after`: all words after. The last two and the first two count.
        """
        window = _window(before, words, after)
        three, two, total = self._log_three, self._log_two, 0.0
        for i in range(2, len(window)):
            value = three.get((window[i - 2], window[i - 1], window[i]))
            if value is None:
                value = two.get((window[i - 1], window[i]))
                if value is None:
                    value = self._log_one.get(window[i], self._unseen)
            total += value
        return total / (len(window) - 2)

    def score_of_taught(self, before: Words, words: Words, after: Words) -> float:
        """The same of a caption that was counted once itself: without it, or no negative could seem as likely."""
        window, total = _window(before, words, after), 0.0
        for one, two, three in zip(window, window[1:], window[2:], strict=False):
            if (count := self._three[one, two, three] - 1) > 0:
                total += math.log(count / (self._two[one, two] - 1))
            elif (count := self._two[two, three] - 1) > 0:
                total += BACKOFF + math.log(count / (self._one[two] - 1))
            else:
                total += 2 * BACKOFF + math.log((max(self._one[three] - 1, 0) + 0.5) / self._total)
        return total / (len(window) - 2)


def _window(before: Words, words: Words, after: Words) -> tuple[str, ...]:
    """Two words, or edges, before; the words; and two after, or one and an edge, or the edge."""
    head = (_EDGE,) * (2 - len(before[-2:])) + before[-2:]
    return head + words + (after[:2] if len(after) > 1 else (*after, _EDGE))


def further_texts(path: Path, *, besides: Iterable[str]) -> Iterator[str]:
    """Texts of a file that only teach the model: one a line, or of a csv its title column; `.gz` of either.

    Args:
        besides: captions that must not be among them (the test split's), compared as titles are.

    Raises:
        UserError: the file is missing, is not UTF-8, or has no title column.
    """
    held = {title_key(text) for text in besides}
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        content = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}). Correct negatives.plausibility.texts.") from None
    if path.name.removesuffix(".gz").endswith(".csv"):
        reader = csv.DictReader(io.StringIO(content, newline=""))
        column = schema.find_columns(reader.fieldnames or ()).get("title")
        if column is None:
            raise UserError(f"{path}: no title column; the header says {', '.join(reader.fieldnames or ())}.")
        texts: Iterable[str] = (row[column] or "" for row in reader)
    else:
        texts = content.splitlines()
    for text in map(clean, texts):
        if text and title_key(text) not in held:
            yield text
