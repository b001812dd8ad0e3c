"""A trained model under examination: what a benchmark may ask of it, whatever method made it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from data.params import UserError
from training import disturbance, zero_shot
from training.disturbance import Kind
from training.embedding_cache import EmbeddingCache, model_hash

Vectors = npt.NDArray[np.float32]
METHOD = "method.json"  # beside an encoder that is only a part of the model


class Examiner:
    """A model folder and the dataset it is asked about; what was embedded once, in any run, is not embedded again.

    A model with a method of its own (`method.json`) answers by it where it can. What it cannot, and everything a plain
    dual encoder is asked, is answered from its embeddings (`training.zero_shot`).
    """

    def __init__(self, model: Path, dataset: Path) -> None:
        from training.encoder import embed_images, embed_texts

        encoder, self._task = load_model(model)
        self._model, self._dataset, self._scale = model, dataset, float(encoder.logit_scale.detach().exp())
        self._scratch = tempfile.TemporaryDirectory()  # disturbed photos, for as long as this object lives
        self._disturbed: dict[str, Path] = {}
        self._numbers = itertools.count()
        self.device = encoder.logit_scale.device.type
        digest = model_hash(model, self.device)
        self._images: EmbeddingCache[str] = EmbeddingCache(
            digest, "images", lambda keys: embed_images(encoder, self._file(keys), keys, f"photos, {model.name}")
        )
        self._texts: EmbeddingCache[str] = EmbeddingCache(digest, "texts", lambda texts: embed_texts(encoder, texts))

    def images(self, keys: Sequence[str]) -> Vectors:
        return finite(self._model, self._images(keys), keys, "the embedding of photo")

    def texts(self, texts: Sequence[str]) -> Vectors:
        return finite(self._model, self._texts(texts), texts, "the embedding of text")

    def disturbed(self, keys: Sequence[str], kind: Kind) -> list[str]:
        path = Path(self._scratch.name) / f"{next(self._numbers)}.parquet"
        names = disturbance.write(self._dataset / "images.parquet", keys, kind, path)
        self._disturbed.update(dict.fromkeys(names, path))
        return names

    def attributes(self, keys: Sequence[str], texts: Sequence[str | None]) -> dict[str, tuple[list[str], Vectors]]:
        if own := getattr(self._task, "attributes", None):
            found: dict[str, tuple[list[str], Vectors]] = own(self._file(keys), keys, texts)
        else:
            from training.labels import classes

            known = classes(self._dataset)
            found = zero_shot.attributes(self.images(keys), texts, self.texts, known, self._scale)
        for task, (_, probabilities) in found.items():
            finite(self._model, probabilities, keys, f"the {task} of photo")
        return found

    def compose(self, keys: Sequence[str], conditions: Sequence[str]) -> Vectors:
        if own := getattr(self._task, "compose", None):
            return finite(self._model, own(self._file(keys), keys, conditions), keys, "the query of photo")
        return zero_shot.compose(self.images(keys), self.texts(conditions))

    def gallery(self) -> list[str]:
        return list(dict.fromkeys(self._read("test", "image_key")["image_key"].to_pylist()))

    def training_texts(self) -> list[str]:
        table = self._read("train", "title", "derived_caption")
        return [text for column in table.columns for text in column.to_pylist() if text]

    def _file(self, keys: Sequence[str]) -> Path:
        """The parquet file that holds the photos `keys`, which are all of one kind."""
        files = {self._disturbed.get(key, self._dataset / "images.parquet") for key in keys}
        if len(files) > 1:
            raise ValueError("photos of several kinds in one question: ask for each kind by itself")
        return files.pop() if files else self._dataset / "images.parquet"

    def _read(self, split: str, *columns: str) -> Any:
        return pq.read_table(
            self._dataset / "products.parquet", columns=list(columns), filters=[("split", "==", split)]
        )


def finite(model: Path, numbers: Vectors, asked: Sequence[Any], what: str) -> Vectors:
    """The numbers (N, ...), a row for each thing asked for. Raises `UserError` naming the first broken row."""
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        raise UserError(
            f"{model}: {what} {asked[bad[0]]!r} is not finite ({len(bad)} in all); "
            "the training diverged. Train it again with a lower learning rate."
        )
    return numbers


def load_model(model: Path) -> tuple[Any, Any]:
    """The encoder of a model folder, and the method that it is a part of, or None."""
    import torch

    from training.encoder import load_encoder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (model / METHOD).is_file():
        return load_encoder(model).to(device), None
    from training.methods import load_task

    task = load_task(model).to(device)
    return task.encoder, task
