"""How far a reader gets without the picture: a bag of words that learns to tell captions from their negatives.

A model that never looks at the photo must not do better than chance on hard negatives, or a method could lower its loss
by learning how negatives are made. The attack is the strongest linear one: logistic regression on the differences of
the two word counts and of the two lengths, fitted on some pairs and scored on others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data.text import tokens

Pair = tuple[str, str]  # caption, negative
L2 = 1e-3
TEN = 10.0  # characters that count as much as a word


class BlindReader:
    """Weights w of words (or word pairs) and lengths; the first text is the caption with chance σ(w·(φ₁ − φ₂))."""

    def __init__(self, pairs: Sequence[Pair], *, word_pairs: bool) -> None:
        """Fit on (caption, negative) pairs by L-BFGS."""
        from scipy.optimize import minimize

        self._word_pairs = word_pairs
        self._index: dict[str, int] = {}
        for caption, negative in pairs:
            for feature in (*self._features(caption), *self._features(negative)):
                self._index.setdefault(feature, len(self._index))
        matrix = self._differences(pairs)

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            margin = matrix @ weights
            slope = -np.exp(-np.logaddexp(0.0, margin))
            value = np.logaddexp(0.0, -margin).mean() + L2 * (weights @ weights)
            return float(value), matrix.T @ slope / len(pairs) + 2 * L2 * weights

        self._weights = np.zeros(matrix.shape[1])
        if pairs:
            self._weights = minimize(loss, self._weights, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x

    def outcomes(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float (N,): 1 where the caption gets the higher score, 0 where the negative does, ½ at a tie, as a coin."""
        margin = self._differences(pairs) @ self._weights
        return (margin > 1e-9) + 0.5 * (np.abs(margin) <= 1e-9)

    def accuracy(self, pairs: Sequence[Pair]) -> float:
        """Mean of `outcomes`."""
        return float(self.outcomes(pairs).mean())

    def _differences(self, pairs: Sequence[Pair]) -> Any:
        """csr (N, words + 2): feature counts of the caption less those of the negative; the last two are lengths."""
        from scipy.sparse import csr_array

        size = len(self._index)
        rows, columns, values = [], [], []
        for number, texts in enumerate(pairs):
            for text, sign in zip(texts, (1.0, -1.0), strict=True):
                words = self._features(text)
                known = [self._index[f] for f in words if f in self._index]
                rows += [number] * (len(known) + 2)
                columns += [*known, size, size + 1]
                values += [*([sign] * len(known)), sign * len(text) / TEN, sign * len(words)]
        return csr_array((values, (rows, columns)), shape=(len(pairs), size + 2))

    def _features(self, text: str) -> list[str]:
        words = [token.text for token in tokens(text)]
        return words + [f"{a} {b}" for a, b in itertools.pairwise(words)] if self._word_pairs else words


def blind_table(
    learnt: Iterable[Mapping[str, Any]], examined: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Blind accuracy per edit and in all, of words and of word pairs.

    Args:
        learnt, examined: rows with `edit`, `edit_type`, `caption` and `negative`, of different products.

    Returns:
        the rows of a table, and {"words": accuracy, "word_pairs": accuracy} over all pairs examined; 0.5, a coin's,
        where there is nothing to examine.
    """
    exam = list(examined)
    pairs = [(item["caption"], item["negative"]) for item in learnt]
    questions = [(item["caption"], item["negative"]) for item in exam]
    readers = {"words": BlindReader(pairs, word_pairs=False), "word_pairs": BlindReader(pairs, word_pairs=True)}
    outcomes = {name: reader.outcomes(questions) for name, reader in readers.items()}
    table = []
    for edit in ("all", *sorted({item["edit"] for item in exam})):
        part = np.array([edit in ("all", item["edit"]) for item in exam], dtype=bool)
        scores = {name: round(float(found[part].mean()), 3) if part.any() else 0.5 for name, found in outcomes.items()}
        table.append({"edit": edit, "pairs": int(part.sum()), **scores})
    return table, {name: table[0][name] for name in outcomes}
