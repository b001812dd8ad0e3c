"""How far two versions of a dataset lie apart, and how far chance alone would put them.

Every product counts something in every feature: its colour once, each word of its title once, its negatives by edit.
The distance of a feature is the total variation of the two versions' shares, 0 for equal and 1 for disjoint. Words are
ranked by the log-odds ratio with an informative prior (Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis
16(4), 2008), which tells a frequent word that moved from a rare one that came up twice.

What chance gives is seen by dealing out anew which products the first version, the second, or both hold. Families are
dealt whole, since forty shades of one lipstick are not forty reasons to believe that a catalog turned to make-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DRAWS = 499  # deals; the smallest p is 1 in 500
LEVEL = 0.05  # of the tests, over all features together (Holm), and over all words together (the surest of a deal)
PRIOR = 500.0  # words that the prior weighs as much as
LEAST = 5  # products that a word needs
VALUES = 6  # values named of each feature
SEED = 41


@dataclass(frozen=True)
class Sides:
    """Which of N products the versions A and B hold (bool (N,) each, one of them true) and their families, int (N,)."""

    in_a: np.ndarray
    in_b: np.ndarray
    family: np.ndarray

    def deals(self, draws: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`in_a` and `in_b` dealt anew: as many products in A, in B and in both, families kept together."""
        rng = np.random.default_rng(seed)
        both, only_a = int((self.in_a & self.in_b).sum()), int((self.in_a & ~self.in_b).sum())
        for _ in range(draws):
            order = np.argsort(rng.permutation(int(self.family.max()) + 1)[self.family], kind="stable")
            in_a, in_b = np.zeros_like(self.in_a), np.ones_like(self.in_b)
            in_a[order[: only_a + both]] = True
            in_b[order[:only_a]] = False
            yield in_a, in_b


@dataclass(frozen=True)
class Feature:
    """Counts of one feature: what a product counts of each value, csr (N, len(values))."""

    name: str
    kind: str
    values: Sequence[str]
    counts: csr_array


def one_hot(name: str, kind: str, values: Sequence[str | None]) -> Feature:
    """The feature of a column; a product whose value is None counts nothing."""
    from scipy.sparse import csr_array

    names = sorted({value for value in values if value is not None})
    place = {value: number for number, value in enumerate(names)}
    rows = [row for row, value in enumerate(values) if value is not None]
    columns = [place[value] for value in values if value is not None]
    shape = (len(values), len(names))
    return Feature(name, kind, names, csr_array((np.ones(len(rows)), (rows, columns)), shape=shape))


def many_hot(name: str, kind: str, values: Sequence[Mapping[str, float]]) -> Feature:
    """The feature of products that count several values each, {value: count}."""
    from scipy.sparse import csr_array

    names = sorted({value for found in values for value in found})
    place = {value: number for number, value in enumerate(names)}
    cells = [(row, place[value], count) for row, found in enumerate(values) for value, count in found.items()]
    rows, columns, counts = (list(part) for part in zip(*cells, strict=True)) if cells else ([], [], [])
    return Feature(name, kind, names, csr_array((np.array(counts, float), (rows, columns)),
                                                shape=(len(values), len(names))))  # fmt: skip


def shifts(features: Sequence[Feature], sides: Sides, draws: int = DRAWS) -> list[dict[str, Any]]:
    """How far each feature moved, the surest and farthest first.

    Returns:
        Rows {feature, kind, distance, chance, p, moved, values}: `chance` is the distance that 95 % of the deals stay
        below, `p` the share of deals at least as far apart, adjusted by Holm, `moved` whether it is below `LEVEL`;
        `values` the largest changes of shares, {value, a, b, change}.
    """
    features = [feature for feature in features if feature.values]
    found = np.array([_distance(*_totals(feature, sides.in_a, sides.in_b)) for feature in features])
    dealt = np.array([
        [_distance(*_totals(feature, in_a, in_b)) for feature in features]
        for in_a, in_b in sides.deals(draws, SEED)
    ]).reshape(draws, len(features))  # fmt: skip
    p = _holm((1 + (dealt >= found - 1e-12).sum(axis=0)) / (1 + draws))
    rows = []
    for number, feature in enumerate(features):
        rows.append({
            "feature": feature.name, "kind": feature.kind, "distance": round(float(found[number]), 4),
            "chance": round(float(np.quantile(dealt[:, number], 1 - LEVEL)), 4), "p": round(float(p[number]), 4),
            "moved": bool(p[number] < LEVEL), "values": _changes(feature, sides),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (not row["moved"], row["chance"] - row["distance"], row["feature"]))


def words(feature: Feature, sides: Sides, draws: int = DRAWS) -> list[dict[str, Any]]:
    """The words that moved beyond what the largest mover of a deal shows, surest first.

    Each word's z is measured by its own spread over the deals, as the words of large families swing most by chance.

    Returns:
        Rows {word, a, b, z, sigmas}: products of A and of B that have the word, its z, positive for a word that grew,
        and how many such spreads that is.
    """
    frequent = np.flatnonzero(feature.counts.sum(axis=0) >= LEAST).tolist()
    if not frequent:
        return []
    kept = Feature(feature.name, feature.kind, [feature.values[i] for i in frequent], feature.counts[:, frequent])
    a, b = _totals(kept, sides.in_a, sides.in_b)
    z = _log_odds(a, b)
    dealt = np.stack([_log_odds(*_totals(kept, *deal)).astype(np.float32) for deal in sides.deals(draws, SEED)])
    spread = np.maximum(np.sqrt((dealt**2).mean(axis=0)), np.finfo(np.float32).eps)
    border = float(np.quantile((np.abs(dealt) / spread).max(axis=1), 1 - LEVEL))
    sigmas = np.abs(z) / spread
    order = sorted(np.flatnonzero(sigmas > border).tolist(), key=lambda i: (-sigmas[i], kept.values[i]))
    return [
        {"word": kept.values[i], "a": int(a[i]), "b": int(b[i]), "z": round(float(z[i]), 2),
         "sigmas": round(float(sigmas[i]), 2)}
        for i in order
    ]  # fmt: skip


def _totals(feature: Feature, in_a: np.ndarray, in_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return feature.counts.T @ in_a.astype(float), feature.counts.T @ in_b.astype(float)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation between two vectors of counts; 1 if only one of them counts anything."""
    if not a.sum() or not b.sum():
        return float(bool(a.sum()) != bool(b.sum()))
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def _log_odds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """z of each word's log-odds ratio, b over a, with the pooled frequencies as prior."""
    prior = PRIOR * (a + b) / (a + b).sum()
    of_a, of_b = a + prior, b + prior
    ratio = np.log(of_b / (of_b.sum() - of_b)) - np.log(of_a / (of_a.sum() - of_a))
    found: np.ndarray = ratio / np.sqrt(1 / of_a + 1 / of_b)
    return found


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values."""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted


def _changes(feature: Feature, sides: Sides) -> list[dict[str, Any]]:
    """The values whose shares changed most."""
    a, b = _totals(feature, sides.in_a, sides.in_b)
    a, b = a / max(a.sum(), 1.0), b / max(b.sum(), 1.0)
    order = sorted(np.flatnonzero(a != b).tolist(), key=lambda i: (-abs(b[i] - a[i]), feature.values[i]))[:VALUES]
    return [
        {"value": feature.values[i], "a": round(float(a[i]), 4), "b": round(float(b[i]), 4),
         "change": round(float(b[i] - a[i]), 4)}
        for i in order
    ]  # fmt: skip
