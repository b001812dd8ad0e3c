"""A trained model sits official benchmarks: each distinct picture and text is encoded once per model, and kept.

Pictures are known by their content: the bytes of their file, and the cut. What is kept of a picture is the feature of
the image trunk, by the trunk's weights, so that models which share a frozen trunk share its work too; what is kept of a
text is its embedding, by the model's files (`training.embedding_cache`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.images import in_threads
from data.params import UserError
from training import zero_shot
from training.embedding_cache import EmbeddingCache, model_hash
from training.examiner import finite, load_model
from training.official import pictures as official_pictures
from training.official.contract import Official, Picture, Vectors

DATASET = Path("store/dataset")
PART = 4096  # pictures per pass, after which they are kept
BLOCK = 8192  # pairs per product of `match`
RANKED = "vqa"  # its head ranks answers, of any list
GROUNDED = "refcoco"  # for which a whole model is fine-tuned
HEADS = ("head", RANKED)  # what `asks` says of benchmarks that need a fine-tuned head


class CannotSit(UserError):
    """The model has not what the benchmark asks for: no score, and no mistake."""


class ModelExam:
    """A model folder before official benchmarks (`training.official.contract.Exam`).

    A model with a method of its own (`method.json`) answers by it where it can: composed queries, attributes, maps; one
    with a head fine-tuned for a task (`training.finetune`) by that. Else embeddings answer (`training.zero_shot`).

    Args:
        model: a trained model's folder.
        root: the folder of all benchmarks, in which pictures are looked for.
        dataset: whose training texts a text-only control may learn from.
    """

    def __init__(self, model: Path, root: Path, dataset: Path = DATASET) -> None:
        from training.encoder import embed_texts
        from training.features import trunk_hash

        self._model, self._root, self._dataset = model, root, dataset
        self._encoder, self._task = load_model(model)
        device = self._encoder.logit_scale.device.type
        self._size = self._encoder.config.image_size
        trunk = f"{trunk_hash(self._encoder.image.trunk, self._size)}-{device}"
        self._features: EmbeddingCache[Picture] = EmbeddingCache(trunk, "pictures", self._see, self._content)
        self._texts: EmbeddingCache[str] = EmbeddingCache(
            model_hash(model, device), "texts", lambda texts: embed_texts(self._encoder, texts)
        )
        self._contents: dict[Picture, str] = {}
        self._heads: dict[str, Any] = {}

    def demand(self, benchmark: Official) -> None:
        """Raise `CannotSit` if the model lacks what the benchmark asks for."""
        if benchmark.asks in HEADS and self._head(benchmark.name) is None:
            raise CannotSit(
                f"{self._model.name} has no head for it. Run `python -m training.finetune {self._model.name} "
                f"{benchmark.name}`; of the methods, simla and syncmask can have one."
            )
        if benchmark.asks == "grounding" and not hasattr(self._task, "itm"):
            raise CannotSit(f"{self._model.name} does not fuse picture and text, so it cannot point; simla can.")

    def images(self, pictures: Sequence[Picture]) -> Vectors:
        import torch

        features = self._pictures(pictures)
        device, parts = self._encoder.logit_scale.device, [np.zeros((0, self._encoder.config.embed_dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(features), PART):
                part = torch.from_numpy(features[start : start + PART]).to(device)
                parts.append(self._encoder.project_image(part).cpu().numpy())
        return finite(self._model, np.concatenate(parts), pictures, "the embedding of picture")

    def texts(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self._encoder.config.embed_dim), np.float32)
        return finite(self._model, self._texts(texts), texts, "the embedding of text")

    def compose(self, pictures: Sequence[Picture], changes: Sequence[str]) -> Vectors:
        if own := getattr(self._task, "compose_features", None):
            queries = own(self._pictures(pictures), changes) if pictures else self.images([])
            return finite(self._model, queries, pictures, "the query of picture")
        return zero_shot.compose(self.images(pictures), self.texts(changes))

    def match(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        seen, at = _distinct(pictures)
        said, of = _distinct(texts)
        left, right = self.images(seen), self.texts(said)
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(pictures), BLOCK):
            rows = slice(start, start + BLOCK)
            parts.append(np.einsum("nd,nd->n", left[at[rows]], right[of[rows]]))
        return np.concatenate(parts)

    def classes(
        self, task: str, pictures: Sequence[Picture | None], texts: Sequence[str | None], names: Sequence[str]
    ) -> Vectors:
        shown = [place for place, picture in enumerate(pictures) if picture]
        head = self._head(task)
        if head is not None and None not in texts:
            found: Vectors = head.classes([(picture,) for picture in pictures], texts, names)
        elif set(names) <= set(self._classes().get(task, ())) and len(shown) == len(pictures):
            found = self._own_classes(task, [picture for picture in pictures if picture], texts, names)
        else:
            photos = np.zeros((len(pictures), self._encoder.config.embed_dim), np.float32)
            photos[shown] = self.images([picture for picture in pictures if picture])
            scale = float(self._encoder.logit_scale.detach().exp())
            _, found = zero_shot.attributes(photos, texts, self.texts, {task: list(names)}, scale)[task]
        return finite(self._model, found, pictures, f"the {task} of picture")

    def classes_of_pairs(
        self, task: str, pictures: Sequence[tuple[Picture, Picture]], texts: Sequence[str], names: Sequence[str]
    ) -> Vectors:
        head = self._head(task)
        if head is None:
            raise CannotSit(f"{self._model}: has no head for {task}. Fine-tune a model that can have one.")
        found: Vectors = head.classes(pictures, texts, names)
        return finite(self._model, found, pictures, f"the {task} of pictures")

    def maps(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        pixels = official_pictures.pixels(pictures, self._root, self._grounder.encoder.config.image_size)
        found: Vectors = self._grounder.maps(pixels, texts)
        finite(self._model, found.reshape(len(found), -1), pictures, "the map of picture")
        return found

    def training_texts(self) -> list[str]:
        path = self._dataset / "products.parquet"
        if not path.is_file():
            raise UserError(f"{path}: not found, so the text-only control cannot learn. Run `dvc repro dataset`.")
        table = pq.read_table(path, columns=["title", "derived_caption"], filters=[("split", "==", "train")])
        return [text for column in table.columns for text in column.to_pylist() if text]

    @functools.cached_property
    def matcher(self) -> Any:
        """The matching head of a fused method, by which retrieval ranks its first candidates again; None for others."""
        if not hasattr(self._task, "itm"):
            return None
        from training.fused.matching import Matcher

        return Matcher(self._task, self._root)

    @functools.cached_property
    def _grounder(self) -> Any:
        """Points by the model that was fine-tuned for it, if there is one."""
        from training.fused.grounding import Grounder
        from training.fused.heads.answers import folder_of

        tuned = folder_of(self._model.name, GROUNDED)
        return Grounder(load_model(tuned)[1] if tuned.is_dir() else self._task)

    def _head(self, task: str) -> Any:
        """What was fine-tuned for the task, or None."""
        from training.fused.heads.answers import Answers, folder_of
        from training.fused.heads.tuned import HEAD
        from training.fused.questions import RankedAnswers

        folder = folder_of(self._model.name, task)
        if task not in self._heads:
            made = RankedAnswers if task == RANKED else Answers
            self._heads[task] = made(folder, self._root) if (folder / HEAD).is_file() else None
        return self._heads[task]

    def _classes(self) -> dict[str, tuple[str, ...]]:
        """{task: its classes} of a method that recognises attributes; empty for others."""
        known = getattr(self._task, "config", None)
        return dict(getattr(known, "classes", {})) if hasattr(self._task, "attributes") else {}

    def _own_classes(
        self, task: str, pictures: Sequence[Picture], texts: Sequence[str | None], names: Sequence[str]
    ) -> Vectors:
        """The method's own probabilities of some of its classes, scaled to sum to 1."""
        self._learn_contents(pictures)
        distinct = {self._contents[picture]: picture for picture in pictures}
        keys = [self._contents[picture] for picture in pictures]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.parquet"
            files = [_png(picture, self._root) for picture in distinct.values()]
            pq.write_table(pa.table({"image_key": list(distinct), "jpeg": files}), path, compression="none")
            known, found = self._task.attributes(path, keys, texts)[task]
        chosen = found[:, [known.index(name) for name in names]]
        total: Vectors = chosen / chosen.sum(1, keepdims=True)
        return total

    def _pictures(self, pictures: Sequence[Picture]) -> Vectors:
        """Trunk features (N, F) float32."""
        self._learn_contents(pictures)
        distinct, at = _distinct(pictures)
        parts = [self._features(distinct[start : start + PART]) for start in range(0, len(distinct), PART)]
        return np.concatenate(parts)[at] if parts else np.zeros((0, self._encoder.image.trunk.width), np.float32)

    def _see(self, pictures: list[Picture]) -> Vectors:
        from training.features import picture_features

        pixels = official_pictures.pixels(pictures, self._root, self._size)
        return picture_features(self._encoder.image.trunk, pixels, len(pictures), self._model.name)

    def _content(self, picture: Picture) -> str:
        return self._contents[picture]

    def _learn_contents(self, pictures: Sequence[Picture]) -> None:
        """Hash the files of pictures not asked for before. Raises one `UserError` for all that are missing."""
        new = [picture for picture in dict.fromkeys(pictures) if picture not in self._contents]
        paths = dict.fromkeys(self._root / picture.path.partition("#")[0] for picture in new)
        if absent := [path for path in paths if not path.is_file()]:
            raise UserError(
                f"{absent[0]}: picture not found ({len(absent):,} of {len(paths):,} picture files are missing below "
                f"{self._root}). Put the benchmark's official pictures there."
            )
        files = list(dict.fromkeys(picture.path for picture in new))  # many cuts may be of one
        hashes = dict(zip(files, in_threads(self._hash, files), strict=True))
        for picture in new:
            bare = dataclasses.replace(picture, path=hashes[picture.path])
            self._contents[picture] = hashlib.sha256(repr(bare).encode()).hexdigest()[:32]

    def _hash(self, path: str) -> str:
        return hashlib.sha256(official_pictures.content(Picture(path), self._root)).hexdigest()


def _png(picture: Picture, root: Path) -> bytes:
    """The picture, cut and padded, as a file's bytes."""
    stream = io.BytesIO()
    official_pictures.load(picture, root).save(stream, "PNG")
    return stream.getvalue()


def _distinct(items: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.int64]]:
    """The distinct items in order of first appearance, and the place of each item among them."""
    place = {item: number for number, item in enumerate(dict.fromkeys(items))}
    return list(place), np.array([place[item] for item in items], dtype=np.int64)
