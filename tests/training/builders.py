"""Small suites, models and outcome tables for the tests of evaluation and gate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from tests.serving import tiny
from training.outcomes import outcome_table

TITLES = ("red shirt", "blue shirt", "green cap", "black shoe", "white sock", "pink scarf", "brown belt", "grey bag")


class FakeExaminee:
    """Vectors by name: what is not listed gets a fixed random unit vector of its own."""

    def __init__(self, known: dict[str, Sequence[float]] | None = None, size: int = 8, corpus: Sequence[str] = TITLES):
        self._known = {name: np.asarray(vector, np.float32) for name, vector in (known or {}).items()}
        self._size, self._corpus = size, list(corpus)

    def _vector(self, name: str) -> np.ndarray:
        if name not in self._known:
            raw = np.random.default_rng(sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**32).normal(size=self._size)
            self._known[name] = (raw / np.linalg.norm(raw)).astype(np.float32)
        return self._known[name]

    def images(self, keys: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(f"image {key}") for key in keys])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(f"text {text}") for text in texts])

    def training_texts(self) -> list[str]:
        return self._corpus


class ConstantExaminee(FakeExaminee):
    """The same vector for everything: every score ties."""

    def _vector(self, name: str) -> np.ndarray:
        return np.full(self._size, self._size**-0.5, np.float32)


def retrieval_items(n: int, titles: Sequence[str] | None = None, photos: Sequence[str] | None = None) -> pa.Table:
    """`n` products with titles t0, t1, … and photos p0, p1, … unless given."""
    titles = titles or [f"t{i}" for i in range(n)]
    return pa.table({
        "item_id": [f"r{i:03}" for i in range(n)], "image_key": list(photos or [f"p{i}" for i in range(n)]),
        "group": pa.array(range(n), pa.int64()), "caption": list(titles), "title_key": list(titles),
    })  # fmt: skip


def compositional_items(n: int) -> pa.Table:
    """`n` items, two per product family, one attribute and one object edit."""
    return pa.table({
        "item_id": [f"c{i:03}" for i in range(n)], "image_key": [f"p{i // 2}" for i in range(n)],
        "group": pa.array([i // 2 for i in range(n)], pa.int64()), "caption_kind": ["title"] * n,
        "caption": [TITLES[i % len(TITLES)] for i in range(n)],
        "edit_type": ["attribute" if i % 2 else "object" for i in range(n)], "edit": ["colour"] * n,
        "negative": [TITLES[(3 * i + 1) % len(TITLES)] for i in range(n)],  # never the caption itself
    })  # fmt: skip


def write_suites(folder: Path, n: int = 24) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(compositional_items(n), folder / "compositional.parquet")
    pq.write_table(retrieval_items(n), folder / "retrieval.parquet")
    return folder


def outcomes_of(
    accuracy: Sequence[float], t2i: Sequence[float], i2t: Sequence[float], *,
    blind: Sequence[float] | None = None, units: Sequence[int] | None = None,
) -> pa.Table:  # fmt: skip
    """An outcome table of the gate's metrics from 0/1 sequences; the blind control misses everything unless given."""
    blind = [0.0] * len(accuracy) if blind is None else blind
    return pa.concat_tables([
        _table("compositional", "accuracy", accuracy, units), _table("compositional", "blind_accuracy", blind, units),
        _table("catalog_retrieval", "t2i_R@10", t2i), _table("catalog_retrieval", "i2t_R@10", i2t),
    ])  # fmt: skip


def _table(benchmark: str, metric: str, values: Sequence[float], units: Sequence[int] | None = None) -> pa.Table:
    array = np.asarray(values, np.float64)
    groups = range(len(array)) if units is None else units
    items = pa.table({"item_id": [f"{i:06}" for i in range(len(array))], "group": pa.array(groups, pa.int64())})
    return outcome_table(benchmark, metric, items, array > 0, array)


def write_workspace(root: Path, n: int = 24) -> None:
    """A repository in small, to run stages in: params.yaml, a dataset with photos, suites, models base and clip."""
    (root / "params.yaml").write_text(
        "gate: {draws: 1000, seed: 29, alpha: 0.05, primary: compositional,"
        " margins: {compositional: 0.01, catalog_retrieval: 0.005}}\n"
    )
    with _stage("dataset", root / "store/dataset") as run:
        pictures = [tiny.picture((20 * i % 255, 90, 200 - 8 * i), seed=i) for i in range(n)]
        pq.write_table(
            pa.table({"image_key": [f"p{i}" for i in range(n)], "jpeg": pictures}), run.out / "images.parquet"
        )
        split = ["train" if i % 2 else "test" for i in range(n)]
        titles = [TITLES[i % len(TITLES)] for i in range(n)]
        products = {"title": titles, "derived_caption": titles, "split": split}
        pq.write_table(pa.table(products), run.out / "products.parquet")
    with _stage("suites", root / "store/suites") as run:
        write_suites(run.out, n)
    for seed, name in enumerate(("base", "clip")):
        tiny.write_model(root / "store/models" / name, seed)


def _stage(kind: str, out: Path) -> contextlib.AbstractContextManager[stage.Run]:
    return stage.run(kind, kind=kind, command=f"python -m data.{kind}", out=out, inputs=[], parameters={}, force=True)
