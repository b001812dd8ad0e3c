"""Exams that know nothing: every score equal, or every score drawn at random. What they get is known beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from training.official.contract import Picture, Vectors

SIZE = 64


class RandomExam:
    """A random unit vector for each distinct picture, text and composed query, and random probabilities."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def images(self, pictures: Sequence[Picture]) -> Vectors:
        return self._units("image", pictures)

    def texts(self, texts: Sequence[str]) -> Vectors:
        return self._units("text", texts)

    def compose(self, pictures: Sequence[Picture], changes: Sequence[str]) -> Vectors:
        return self._units("query", zip(pictures, changes, strict=True))

    def match(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        return np.einsum("nd,nd->n", self.images(pictures), self.texts(texts))

    def classes(self, task, pictures, texts, names) -> Vectors:  # type: ignore[no-untyped-def]
        return self._shares(task, zip(pictures, texts, strict=True), len(names))

    def classes_of_pairs(self, task, pictures, texts, names) -> Vectors:  # type: ignore[no-untyped-def]
        return self._shares(task, zip(pictures, texts, strict=True), len(names))

    def maps(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        drawn = [self._draw("map", asked, 16) for asked in zip(pictures, texts, strict=True)]
        return np.abs(np.array(drawn, np.float32).reshape(-1, 4, 4))

    def training_texts(self) -> list[str]:
        return ["a red shirt for men", "two people near the river", "the dog runs"]

    def _units(self, kind, asked) -> Vectors:  # type: ignore[no-untyped-def]
        raw = np.array([self._draw(kind, item, SIZE) for item in asked], np.float64).reshape(-1, SIZE)
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)

    def _shares(self, kind, asked, count: int) -> Vectors:  # type: ignore[no-untyped-def]
        raw = np.exp(np.array([self._draw(kind, item, count) for item in asked], np.float64).reshape(-1, count))
        return (raw / raw.sum(1, keepdims=True)).astype(np.float32)

    def _draw(self, kind: str, item: object, size: int) -> np.ndarray:
        digest = hashlib.sha256(f"{self._seed} {kind} {item!r}".encode()).digest()
        return np.random.default_rng(list(digest)).normal(size=size)


class ConstantExam(RandomExam):
    """The same answer to everything: every score is a tie."""

    def __init__(self) -> None:
        super().__init__(0)

    def _draw(self, kind: str, item: object, size: int) -> np.ndarray:
        return np.ones(size)
