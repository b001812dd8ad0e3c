"""A trained model under examination: what a benchmark may ask of it, whatever method made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from data.params import UserError
from training import zero_shot

Vectors = npt.NDArray[np.float32]
METHOD = "method.json"  # beside an encoder that is only a part of the model


class Examiner:
    """A model folder and the dataset it is asked about; every photo and text is embedded once.

    A model with a method of its own (`method.json`) answers by it where it can. What it cannot, and everything a plain
    dual encoder is asked, is answered from its embeddings (`training.zero_shot`).
    """

    def __init__(self, model: Path, dataset: Path) -> None:
        from training.encoder import embed_images, embed_texts

        encoder, self._task = _load(model)
        photos = dataset / "images.parquet"
        self._model, self._dataset, self._scale = model, dataset, float(encoder.logit_scale.detach().exp())
        self._photos = _Memo(lambda keys: embed_images(encoder, photos, keys, f"photos, {model.name}"))
        self._texts = _Memo(lambda texts: embed_texts(encoder, texts))

    def images(self, keys: Sequence[str]) -> Vectors:
        return self._finite(self._photos(keys), keys, "the embedding of photo")

    def texts(self, texts: Sequence[str]) -> Vectors:
        return self._finite(self._texts(texts), texts, "the embedding of text")

    def attributes(self, keys: Sequence[str], texts: Sequence[str | None]) -> dict[str, tuple[list[str], Vectors]]:
        if own := getattr(self._task, "attributes", None):
            found: dict[str, tuple[list[str], Vectors]] = own(self._dataset / "images.parquet", keys, texts)
        else:
            from training.labels import classes

            known = classes(self._dataset)
            found = zero_shot.attributes(self.images(keys), texts, self.texts, known, self._scale)
        for task, (_, probabilities) in found.items():
            self._finite(probabilities, keys, f"the {task} of photo")
        return found

    def compose(self, keys: Sequence[str], conditions: Sequence[str]) -> Vectors:
        if own := getattr(self._task, "compose", None):
            return self._finite(own(self._dataset / "images.parquet", keys, conditions), keys, "the query of photo")
        return zero_shot.compose(self.images(keys), self.texts(conditions))

    def gallery(self) -> list[str]:
        return list(dict.fromkeys(self._read("test", "image_key")["image_key"].to_pylist()))

    def training_texts(self) -> list[str]:
        table = self._read("train", "title", "derived_caption")
        return [text for column in table.columns for text in column.to_pylist() if text]

    def _read(self, split: str, *columns: str) -> Any:
        return pq.read_table(
            self._dataset / "products.parquet", columns=list(columns), filters=[("split", "==", split)]
        )

    def _finite(self, numbers: Vectors, asked: Sequence[str], what: str) -> Vectors:
        bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(bad):
            raise UserError(
                f"{self._model}: {what} {asked[bad[0]]!r} is not finite ({len(bad)} in all); "
                "the training diverged. Train it again with a lower learning rate."
            )
        return numbers


def _load(model: Path) -> tuple[Any, Any]:
    """The encoder of a model folder, and the method that it is a part of, or None."""
    import torch

    from training.encoder import load_encoder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (model / METHOD).is_file():
        return load_encoder(model).to(device), None
    from training.methods import load_task

    task = load_task(model).to(device)
    return task.encoder, task


class _Memo:
    """Embeds what it has not seen before, in one call."""

    def __init__(self, embed: Callable[[list[str]], Vectors]) -> None:
        self._embed = embed
        self._known: dict[str, Vectors] = {}

    def __call__(self, asked: Sequence[str]) -> Vectors:
        new = [item for item in dict.fromkeys(asked) if item not in self._known]
        if new:
            self._known.update(zip(new, self._embed(new), strict=True))
        return np.stack([self._known[item] for item in asked])
