"""How far a reader gets without the picture: a bag of words that learns to tell captions from their negatives.

A model that never looks at the photo must not do better than chance on hard negatives, or a method could lower its loss
by learning how negatives are made. The attack is the strongest linear one: logistic regression on the difference of the
two word counts, fitted on some pairs and scored on others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data.text import tokens

Pair = tuple[str, str]  # caption, negative
L2 = 1e-3


class BlindReader:
    """Weights w of words (and word pairs); the first of two texts is the caption with probability σ(w·(φ₁ − φ₂))."""

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
            slope = -1.0 / (1.0 + np.exp(margin))
            value = np.logaddexp(0.0, -margin).mean() + L2 * (weights @ weights)
            return float(value), matrix.T @ slope / len(pairs) + 2 * L2 * weights

        start = np.zeros(len(self._index))
        self._weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x

    def accuracy(self, pairs: Sequence[Pair]) -> float:
        """Share of pairs whose caption gets the higher score; a tie counts half, as a coin would."""
        margin = self._differences(pairs) @ self._weights
        return float(np.mean((margin > 1e-9) + 0.5 * (np.abs(margin) <= 1e-9)))

    def _differences(self, pairs: Sequence[Pair]) -> Any:
        from scipy.sparse import csr_array

        rows, columns, values = [], [], []
        for number, texts in enumerate(pairs):
            for text, sign in zip(texts, (1.0, -1.0), strict=True):
                known = [self._index[f] for f in self._features(text) if f in self._index]
                rows += [number] * len(known)
                columns += known
                values += [sign] * len(known)
        return csr_array((values, (rows, columns)), shape=(len(pairs), len(self._index)))

    def _features(self, text: str) -> list[str]:
        words = [token.text for token in tokens(text)]
        return words + [f"{a} {b}" for a, b in itertools.pairwise(words)] if self._word_pairs else words


def blind_table(
    learnt: Iterable[Mapping[str, Any]], examined: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Blind accuracy per edit and in all, of words and of word pairs.

    Args:
        learnt, examined: rows with `edit`, `caption` and `negative`, of different products.

    Returns:
        the rows of a table, and {"words": accuracy, "word_pairs": accuracy} over all pairs examined.
    """
    exam = list(examined)
    pairs = [(item["caption"], item["negative"]) for item in learnt]
    readers = {name: BlindReader(pairs, word_pairs=name == "word_pairs") for name in ("words", "word_pairs")}
    table = []
    for edit in ("all", *sorted({item["edit"] for item in exam})):
        part = [(item["caption"], item["negative"]) for item in exam if edit in ("all", item["edit"])]
        scores = {name: round(reader.accuracy(part), 3) for name, reader in readers.items()}
        table.append({"edit": edit, "pairs": len(part), **scores})
    return table, {name: table[0][name] for name in readers}
