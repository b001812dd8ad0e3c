"""An exam whose composed queries give pictures the scores that a test plans, so that every rank is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from training.official.contract import Picture, Vectors

SIZE = 512  # with fewer dimensions, unplanned pictures would come near planned ones by chance


class Planned:
    """Pictures and texts have random directions. A query (picture's path, text) scores paths as `plans` says.

    What a plan does not name scores around 0. Plans hold for scores up to a common positive factor.
    """

    def __init__(self, plans: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
        self._plans = plans
        self.composed: list[tuple[str, str]] = []

    def images(self, pictures: Sequence[Picture]) -> Vectors:
        return self._directions([picture.path for picture in pictures])

    def texts(self, texts: Sequence[str]) -> Vectors:
        return self._directions(texts)

    def compose(self, pictures: Sequence[Picture], changes: Sequence[str]) -> Vectors:
        asked = [(picture.path, change) for picture, change in zip(pictures, changes, strict=True)]
        self.composed += asked
        return np.array([self._query(self._plans[query]) for query in asked], np.float32)

    def _query(self, plan: Mapping[str, float]) -> np.ndarray:
        """The shortest q with V q = s: exactly the planned scores, and as little as possible for other pictures."""
        vectors = self._directions(list(plan)).astype(np.float64)
        query = np.linalg.pinv(vectors) @ np.array(list(plan.values()))
        return np.asarray(query / np.linalg.norm(query))

    def _directions(self, names: Sequence[str]) -> Vectors:
        seeds = [list(hashlib.sha256(name.encode()).digest()) for name in names]
        raw = np.array([np.random.default_rng(seed).normal(size=SIZE) for seed in seeds], np.float32)
        return raw.reshape(-1, SIZE) / np.linalg.norm(raw.reshape(-1, SIZE), axis=1, keepdims=True)


def plan(target: str, before: Sequence[str] = (), hidden: str | None = None) -> dict[str, float]:
    """Scores by which `before` come first and the target next; `hidden` nearest of all, to be taken out or not."""
    scores = {name: 1.0 - 0.01 * place for place, name in enumerate(before)} | {target: 0.85}
    return scores | ({hidden: 1.2} if hidden else {})


def miss(*targets: str) -> dict[str, float]:
    """Scores by which the targets come last."""
    return dict.fromkeys(targets, -1.0)
