"""The captions nearest to a text: by the words they share, rare words counting more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from data.negatives.meanings import Phrase, stems

LEAST_OVERLAP = 0.8  # weight of the words in common, as a share of the weight of all words of the two texts
CHUNK = 256  # texts compared with the whole catalog at a time


class Captions:
    """The captions of a catalog, by the words they are made of.

    A word weighs log(1 + N / n), N captions of which n have it (the inverse document frequency of BM25 without its
    constants), a pair of texts is measured by the weighted Jaccard index of their word sets.
    """

    def __init__(self, captions: Iterable[tuple[str, str]]) -> None:
        """`captions`: pairs of row id and text; the texts of different rows may repeat."""
        holders: dict[Phrase, set[str]] = defaultdict(set)
        for row_id, caption in captions:
            holders[stems(caption)].add(row_id)
        self._texts = list(holders)
        self._holders = [sorted(holders[text]) for text in self._texts]
        self._columns: dict[str, int] = {}
        for text in self._texts:
            for word in text:
                self._columns.setdefault(word, len(self._columns))
        held = np.zeros(len(self._columns))
        for text in self._texts:
            held[[self._columns[word] for word in set(text)]] += 1
        self._weights = np.log1p(len(self._texts) / np.maximum(held, 1))
        self._unknown = float(np.log1p(len(self._texts)))  # of a word that no caption has
        self._matrix, self._sums = self._vectors(self._texts)

    def nearest(self, texts: Sequence[str]) -> Iterator[list[tuple[Phrase, list[str]]]]:
        """For each text the captions that overlap with it by `LEAST_OVERLAP`: (stems, ids of their rows)."""
        for start in range(0, len(texts), CHUNK):
            matrix, sums = self._vectors([stems(text) for text in texts[start : start + CHUNK]])
            common = (matrix @ self._matrix.T).tocsr()
            for row in range(common.shape[0]):
                here = slice(common.indptr[row], common.indptr[row + 1])
                places, shared = common.indices[here], common.data[here]
                overlap = shared / (sums[row] + self._sums[places] - shared)
                chosen = np.sort(places[overlap >= LEAST_OVERLAP])
                yield [(self._texts[place], self._holders[place]) for place in chosen]

    def _vectors(self, texts: Sequence[Phrase]) -> tuple[Any, np.ndarray]:
        """Rows of square roots of weights, so that a product of two weighs their common words; and their sums."""
        from scipy.sparse import csr_array

        rows, columns, sums = [], [], np.zeros(len(texts))
        for number, text in enumerate(texts):
            for word in sorted(set(text)):
                column = self._columns.get(word)
                sums[number] += self._unknown if column is None else self._weights[column]
                if column is not None:
                    rows.append(number)
                    columns.append(column)
        values = np.sqrt(self._weights[columns]) if columns else np.zeros(0)
        return csr_array((values, (rows, columns)), shape=(len(texts), len(self._columns))), sums
