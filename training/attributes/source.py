"""Products with their attribute labels and the token features of frozen towers: what CMA-CLIP's batches hold.

A product is shown with its title only. The derived caption is made of the very attributes that are to be recognised;
a product without a title has no text. Batch axis b, tokens L, patches P, tower widths W_t and W_v.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data import stage
from data.images import decode_rgb, in_threads, to_pixels
from training.attributes.tokens import Levels
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.features import read_jpegs, trunk_features, trunk_tokens
from training.labels import TASKS, labels
from training.sampling import Integers
from training.source import IMAGES, Products, Source, load_products, product_pictures
from training.task import DATASET, Batch, Task, Tokens
from training.texts import Texts

TRAIN = "train"
TEXTS = 256  # texts per pass of the frozen trunk


class Words:
    """Token features of distinct texts by a frozen text trunk, computed once: ragged, in half precision."""

    @torch.inference_mode()
    def __init__(self, encoder: DualEncoder, texts: Texts) -> None:
        self.texts, trunk = texts, encoder.text.trunk
        device, pooled, parts = encoder.logit_scale.device, {}, {}
        order = np.argsort(texts.lengths, kind="stable")
        starts = range(0, len(order), TEXTS)
        for start in stage.progress(starts, what=f"batches of {TEXTS} texts", label="frozen text trunk"):
            rows = order[start : start + TEXTS]
            given = texts.take(rows).to(device)
            tokens = trunk.contextual(trunk.look_up(given.ids), given.mask)
            features = trunk.pool(tokens, given.mask).float().cpu()
            for row, length, feature, token in zip(rows, texts.lengths[rows], features, tokens, strict=True):
                pooled[row], parts[row] = feature, token[:length].half().cpu()
        count = range(len(order))
        self.pooled = torch.stack([pooled[row] for row in count]).numpy()
        self.flat = torch.cat([parts[row] for row in count]).numpy()

    def take(self, places: Integers) -> tuple[Tokens, Tensor]:
        """The texts at `places` (b) with their features, and their token features float32 (b, L, W_t)."""
        found = self.texts.take(places)
        column = np.arange(found.mask.shape[1])
        at = np.where(found.mask.numpy() > 0, self.texts.starts[places][:, None] + column, 0)
        tokens = torch.from_numpy(self.flat[at]).float() * found.mask[:, :, None]
        return dataclasses.replace(found, features=torch.from_numpy(self.pooled[places])), tokens


class LabelledSource(Source):
    """Batches with `labels` int64 (b, K), `has_text` bool (b,), and of frozen towers their token features:
    `image_tokens` float32 (b, P, W_v) and `text_tokens` float32 (b, L, W_t).
    """

    labels: npt.NDArray[np.int64]
    patches: npt.NDArray[np.float16] | None = None
    words: Words | None = None
    levels: Levels = None

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        batch = dict(super()._make(step, positions, places))
        texts = self.own[positions, 0]
        batch["labels"] = torch.from_numpy(self.labels[positions])
        batch["has_text"] = torch.from_numpy(texts >= 0)
        if self.words is not None:
            batch["caption"], tokens = self.words.take(texts)
            if self.levels is not None:
                batch["text_tokens"] = tokens
        if self.patches is not None:
            batch["image_tokens"] = torch.from_numpy(self.patches[positions]).float()
        return batch


def labelled_source(
    task: Task, config: TrainerConfig, name: str, tasks: Sequence[str], levels: Levels, words: Words | None = None
) -> LabelledSource:
    """Batches of the train split for the attribute `tasks`; of frozen trunks everything is computed beforehand."""
    encoder, products = task.encoder, titled(load_products(DATASET, TRAIN))
    patches = None
    if levels is not None and "image.trunk" in config.frozen:  # first: one pass of the trunk fills both caches
        size = encoder.config.image_size
        _, patches = trunk_tokens(encoder.image.trunk, size, DATASET / IMAGES, products.image_keys, levels, name)
    pictures = product_pictures(encoder, products, config, name)
    made = LabelledSource(products, encoder, pictures, config, task.needs)
    made.labels = task_labels(products, tasks)
    made.patches, made.levels = patches, levels
    if "text.trunk" in config.frozen:
        made.words = words or Words(encoder, made.texts)
    return made


def titled(products: Products) -> Products:
    """The same products with their titles alone."""
    return dataclasses.replace(products, captions=[(title, None) for title, _ in products.captions])


def task_labels(products: Products, tasks: Sequence[str]) -> npt.NDArray[np.int64]:
    """Labels (N, K) of products, one column per task of `tasks`."""
    return labels(DATASET, products.row_ids)[:, [TASKS.index(task) for task in tasks]]


class Items:
    """N products to recognise, by picture and text; a text of None is missing. Batches as training's, less the labels.

    Features of a convolutional tower come from their cache, other towers see pixels. `words`, where given, holds the
    texts' features; else the text tower sees tokens.
    """

    def __init__(
        self, encoder: DualEncoder, images: Path, keys: Sequence[str], texts: Sequence[str | None], levels: Levels,
        words: Words | None = None,
    ) -> None:  # fmt: skip
        self.keys, self.size, self.words = list(keys), encoder.config.image_size, words
        self.features: Any = None
        self.patches: Any = None
        trunk = encoder.image.trunk
        if encoder.config.image.kind == "timm" and levels is None:
            self.features = trunk_features(trunk, self.size, images, self.keys, "attributes")
        elif encoder.config.image.kind == "timm":
            self.features, self.patches = trunk_tokens(trunk, self.size, images, self.keys, levels or (), "attributes")
        else:
            self.jpegs = read_jpegs(images, sorted(set(keys)))
        self.has_text = np.array([bool(text) for text in texts], dtype=bool)
        known = words.texts if words else Texts([text for text in texts if text] or ["-"], encoder)
        self.texts, self.places = known, np.array([known.place.get(text or "", 0) for text in texts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Integers) -> Batch:
        """The items at `rows`, on the CPU."""
        batch: dict[str, Any] = {"has_text": torch.from_numpy(self.has_text[rows])}
        if self.words is not None:
            batch["caption"], batch["text_tokens"] = self.words.take(self.places[rows])
        else:
            batch["caption"] = self.texts.take(self.places[rows])
        if self.features is None:
            batch["image"] = self._pixels([self.keys[row] for row in rows.tolist()])
        else:
            batch["image"] = torch.from_numpy(self.features[rows])
        if self.patches is not None:
            batch["image_tokens"] = torch.from_numpy(self.patches[rows]).float()
        return batch

    def _pixels(self, keys: Sequence[str]) -> Tensor:
        pixels = list(in_threads(lambda key: to_pixels(decode_rgb(self.jpegs[key]), self.size), keys))
        return torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())
