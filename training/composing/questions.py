"""Composed retrieval: a picture and a condition ask for other pictures. Its metrics, and the validation split's number.

The reference picture is taken out of the gallery before ranking [CIRR]; ranks count from 1, ties against the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.suites_composed import CHANGES, composed
from training.encoder import DualEncoder, embed_images
from training.ranking import TIE, ranks_without_own
from training.source import IMAGES, PRODUCTS
from training.task import DATASET

Embeddings = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Compose = Callable[[Path, Sequence[str], Sequence[str]], Embeddings]
AT = (1, 10)
PER_CHANGE = 100  # questions per changed attribute asked of the validation split


@dataclass(frozen=True)
class Questions:
    """Q questions to a gallery of pictures: references and conditions; places of the reference and the right ones."""

    gallery: list[str]
    references: list[str]
    conditions: list[str]
    own: Integers
    right: list[list[int]]


def questions(dataset: Path, split: str, most: int) -> Questions:
    """Pictures of a split that differ in exactly one attribute, at most `most` questions per attribute."""
    table = pd.read_parquet(dataset / PRODUCTS)
    table = table[table.split == split]
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    items = composed(rows, most) if set(CHANGES) <= set(table.columns) else []
    gallery = sorted(set(table.image_key))
    place = {key: i for i, key in enumerate(gallery)}
    references = [item["image_key"] for item in items]
    return Questions(
        gallery, references, [item["condition"] for item in items],
        np.array([place[key] for key in references], np.int64),
        [[place[key] for key in item["targets"]] for item in items],
    )  # fmt: skip


def average_precision(hits: Sequence[int], k: int, targets: int) -> float:
    """AP@k = Σ_{r ≤ k} precision(r) hit(r) / min(k, targets), of the ranks at which targets were found [CIRCO]."""
    found = sorted(rank for rank in hits if rank <= k)
    return sum((number + 1) / rank for number, rank in enumerate(found)) / min(k, targets)


def merged(first: Embeddings, second: Embeddings) -> Embeddings:
    """One query (Q, P) of two captions' embeddings: each normalised, averaged, normalised [FashionIQ]."""
    total = _unit(first) + _unit(second)
    return _unit(total)


def val_retrieval(encoder: DualEncoder, compose: Compose) -> dict[str, float]:
    """`val_composed_R@k` and `val_composed_mAP@10`; nothing where the split's products cannot be asked about."""
    asked = questions(DATASET, "val", PER_CHANGE)
    if not asked.right:
        return {}
    gallery = embed_images(encoder, DATASET / IMAGES, asked.gallery, "validation")
    queries = compose(DATASET / IMAGES, asked.references, asked.conditions)
    rank = ranks_without_own(queries, gallery, asked.own, asked.right)
    precision = [
        average_precision(hits(gallery @ query, own, right), AT[-1], len(right))
        for query, own, right in zip(queries, asked.own, asked.right, strict=True)
    ]
    found = {f"val_composed_R@{k}": float((rank <= k).mean()) for k in AT}
    return {name: round(v, 4) for name, v in {**found, f"val_composed_mAP@{AT[-1]}": float(np.mean(precision))}.items()}


def hits(scores: Embeddings, own: int, right: Sequence[int]) -> list[int]:
    """Ranks of the right pictures by their scores (G,), the reference `own` taken out; among equals the last."""
    others = np.delete(scores, [own, *right])
    found = np.sort(scores[list(right)])[::-1]
    return [1 + number + int((others >= score - TIE).sum()) for number, score in enumerate(found)]


def _unit(vectors: Embeddings) -> Embeddings:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
