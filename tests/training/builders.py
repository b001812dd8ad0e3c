"""Small suites, models and outcome tables for the tests of evaluation and gate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data import stage
from tests.serving import tiny
from training import labels
from training.outcomes import outcome_table

TASKS, CLASSES = ("gender", "article_type"), ("Boys", "Girls", "Men", "Women")
TITLES = ("red shirt", "blue shirt", "green cap", "black shoe", "white sock", "pink scarf", "brown belt", "grey bag")


MODELS = ("base", "clip", "lincir", "cma_clip")  # base and one of each endpoint
GATE: dict[str, dict[str, object]] = {
    "endpoints": {
        "search": {"primary": "compositional", "margins": {"compositional": 0.01, "catalog_retrieval": 0.005}},
        "compose": {"primary": "composed_retrieval", "margins": {"composed_retrieval": 0.01}},
        "attributes": {"primary": "attributes", "margins": {"attributes": 0.01}},
    }
}


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

    def attributes(self, keys: Sequence[str], texts: Sequence[str | None]) -> dict[str, tuple[list[str], np.ndarray]]:
        """Probabilities from the vectors' components: what is not listed answers at random."""
        vectors = [self._vector(f"product {key} {text}") for key, text in zip(keys, texts, strict=True)]
        found = np.exp(np.stack(vectors)[:, : len(CLASSES)].astype(np.float64))
        return {task: (list(CLASSES), found / found.sum(1, keepdims=True)) for task in TASKS}

    def compose(self, keys: Sequence[str], conditions: Sequence[str]) -> np.ndarray:
        asked = zip(keys, conditions, strict=True)
        return np.stack([self._vector(f"query {key} {condition}") for key, condition in asked])

    def disturbed(self, keys: Sequence[str], kind: str) -> list[str]:
        return [f"{key}~{kind}" for key in keys]

    def gallery(self) -> list[str]:
        return [f"p{2 * i}" for i in range(60)]

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


def attribute_items(n: int) -> pa.Table:
    """`n` items, two per product: one of each task."""
    return pa.table({
        "item_id": [f"a{i:03}" for i in range(n)], "image_key": [f"p{i // 2}" for i in range(n)],
        "group": pa.array([i // 2 for i in range(n)], pa.int64()),
        "title": [TITLES[i // 2 % len(TITLES)] if i // 2 % 5 else "" for i in range(n)],
        "task": [TASKS[i % 2] for i in range(n)], "label": [CLASSES[i // 2 % len(CLASSES)] for i in range(n)],
        "commonest": ["Men"] * n,
    })  # fmt: skip


def composed_items(n: int, targets: Sequence[Sequence[str]] | None = None) -> pa.Table:
    """`n` items, one per test photo (those of even number) in turn; one answer each, the next photo, unless given."""
    photos = [f"p{2 * i}" for i in range(max(2, n // 2))]
    own = [photos[i % len(photos)] for i in range(n)]
    return pa.table({
        "item_id": [f"q{i:03}" for i in range(n)], "image_key": own, "group": pa.array(range(n), pa.int64()),
        "changed": ["base_colour" if i % 2 else "gender" for i in range(n)],
        "value": ["Red" if i % 2 else "Men" for i in range(n)],
        "condition": ["in red" if i % 2 else "for men" for i in range(n)],
        "targets": list(targets or [[photos[(i + 1) % len(photos)]] for i in range(n)]),
    })  # fmt: skip


def write_suites(folder: Path, n: int = 24) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(compositional_items(n), folder / "compositional.parquet")
    pq.write_table(retrieval_items(n), folder / "retrieval.parquet")
    pq.write_table(attribute_items(n), folder / "attributes.parquet")
    pq.write_table(composed_items(n), folder / "composed.parquet")
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


def write_workspace(root: Path, n: int = 24, models: Sequence[str] = ("base", "clip")) -> None:
    """A repository in small, to run stages in: params.yaml, a dataset with photos, suites, plain encoders."""
    (root / "params.yaml").write_text(yaml.safe_dump({"gate": {"draws": 1000, **GATE}}))
    with _stage("dataset", root / "store/dataset") as run:
        photos = 2 * n  # half of them in the test split: enough for a ranking
        pictures = [tiny.picture((20 * i % 255, 90, (200 - 8 * i) % 255), seed=i) for i in range(photos)]
        pq.write_table(
            pa.table({"image_key": [f"p{i}" for i in range(photos)], "jpeg": pictures}), run.out / "images.parquet"
        )
        pq.write_table(_products(photos), run.out / "products.parquet")
    with _stage("suites", root / "store/suites") as run:
        write_suites(run.out, n)
    for seed, name in enumerate(models):
        tiny.write_model(root / "store/models" / name, seed)


def _products(n: int) -> pa.Table:
    """`n` products with photos, test and train in turn, and so many of train without that every class is one."""
    rows = []
    for i in range(n + 10 * len(CLASSES)):
        title, value = TITLES[i % len(TITLES)], CLASSES[i % len(CLASSES)]
        split = "test" if i < n and not i % 2 else "train"
        row = {"row_id": f"{i:016x}", "image_key": f"p{i}", "title": title, "derived_caption": title, "split": split}
        rows.append({**row, **dict.fromkeys(labels.TASKS), **dict.fromkeys(TASKS, value)})
    return pa.Table.from_pylist(rows)


def _stage(kind: str, out: Path) -> contextlib.AbstractContextManager[stage.Run]:
    return stage.run(kind, kind=kind, command=f"python -m data.{kind}", out=out, inputs=[], parameters={}, force=True)
