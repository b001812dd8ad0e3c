"""Where batches come from: the products of one split, their captions and negatives as tokens, their pictures.

Every text is tokenised once; what an epoch shows of a product (title or derived caption, which negatives, which crop)
is a function of (seed, epoch), so any step's batch can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.images import decode_rgb, in_threads, to_pixels
from data.params import UserError
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.features import read_jpegs, trunk_features
from training.sampling import TYPES, Integers, crops, draws, epoch_batches
from training.task import Batch, Key, Tokens

KINDS = ("title", "derived")  # caption kinds, in the order of the columns of `Products.captions`
PRODUCTS, IMAGES, NEGATIVES = "products.parquet", "images.parquet", "negatives.parquet"


@dataclass(frozen=True)
class Products:
    """N products of one split: ids, group, picture, and captions (title, derived), None where there is none."""

    row_ids: list[str]
    groups: Integers
    image_keys: list[str]
    captions: list[tuple[str | None, str | None]]


def load_products(dataset: Path, split: str) -> Products:
    """The products of a split that have a caption, in the dataset's order."""
    columns = ["row_id", "split", "group", "image_key", "title", "derived_caption"]
    table = pd.read_parquet(dataset / PRODUCTS, columns=columns)
    table = table[(table.split == split) & (table.title.notna() | table.derived_caption.notna())]
    if table.empty:
        raise UserError(f"{dataset / PRODUCTS}: the {split} split is empty. Land more products, then build it again.")
    texts = table[["title", "derived_caption"]].astype(object)
    return Products(
        row_ids=table.row_id.tolist(),
        groups=table.group.to_numpy(np.int64),
        image_keys=table.image_key.tolist(),
        captions=list(texts.where(texts.notna(), None).itertuples(index=False, name=None)),
    )


class Texts:
    """Distinct texts, tokenised once into one ragged array."""

    def __init__(self, texts: Sequence[str], encoder: DualEncoder) -> None:
        self.distinct = sorted(set(texts))
        self.place = {text: i for i, text in enumerate(self.distinct)}
        rows: list[list[int]] = []
        for start in range(0, len(self.distinct), 4096):
            ids, mask = encoder.tokenize(self.distinct[start : start + 4096])
            rows += [row[: int(n)] for row, n in zip(ids.tolist(), mask.sum(1), strict=True)]
        self.lengths = np.array([len(row) for row in rows])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self.flat = np.concatenate([np.array(row, dtype=np.int64) for row in rows])

    def take(self, places: Integers) -> Tokens:
        """The texts at `places` (N), padded with zeros to the longest of them."""
        lengths = self.lengths[places]
        column = np.arange(max(int(lengths.max()) if len(places) else 1, 1))
        mask = column < lengths[:, None]
        ids = np.where(mask, self.flat[np.where(mask, self.starts[places][:, None] + column, 0)], 0)
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))


class Candidates:
    """Hard negatives of N products: for each (product, caption kind, type) a run of places in a `Texts`."""

    def __init__(self, table: pd.DataFrame, row_ids: Sequence[str]) -> None:
        position = {row_id: i for i, row_id in enumerate(row_ids)}
        table = table[table.row_id.isin(position)]
        cell = np.ravel_multi_index(
            (
                table.row_id.map(position).to_numpy(np.int64),
                table.caption_kind.map({k: i for i, k in enumerate(KINDS)}).to_numpy(np.int64),
                table.edit_type.map({t: i for i, t in enumerate(TYPES)}).to_numpy(np.int64),
            ),
            (len(row_ids), len(KINDS), len(TYPES)),
        )
        order = np.argsort(cell, kind="stable")
        self.texts: list[str] = table.negative.to_numpy()[order].tolist()
        counts = np.bincount(cell, minlength=len(row_ids) * len(KINDS) * len(TYPES))
        self.counts = counts.reshape(len(row_ids), len(KINDS), len(TYPES))
        self.starts = (np.cumsum(counts) - counts).reshape(self.counts.shape)

    def draw(self, positions: Integers, kinds: Integers, chance: Any) -> tuple[Integers, Any]:
        """Places in `texts` (B, 4) drawn by `chance` (B, 4) in [0, 1), and validity bool (B, 4)."""
        counts, starts = self.counts[positions, kinds], self.starts[positions, kinds]
        return starts + (chance * counts).astype(np.int64), counts > 0


class Pictures(Protocol):
    """Images of products by position: features (B, F) float32 or pixels (B, 3, H, W) uint8."""

    def take(self, positions: Integers, chance: Any) -> Tensor: ...


class Features:
    """Cached features of a frozen trunk."""

    def __init__(self, encoder: DualEncoder, dataset: Path, keys: Sequence[str], label: str) -> None:
        size = encoder.config.image_size
        self.features = trunk_features(encoder.image.trunk, size, dataset / IMAGES, keys, label)

    def take(self, positions: Integers, chance: Any) -> Tensor:
        return torch.from_numpy(self.features[positions])


class Pixels:
    """Pictures decoded per batch, each cropped at random: `crop` is the least share of the area that stays."""

    def __init__(self, encoder: DualEncoder, dataset: Path, keys: Sequence[str], crop: float) -> None:
        found = read_jpegs(dataset / IMAGES, sorted(set(keys)))
        self.jpegs = [found[key] for key in keys]
        self.size, self.crop = encoder.config.image_size, crop

    def take(self, positions: Integers, chance: Any) -> Tensor:
        jobs = [(self.jpegs[p], chance[p]) for p in positions.tolist()]
        return torch.from_numpy(np.stack(list(in_threads(self._one, jobs))).transpose(0, 3, 1, 2).copy())

    def _one(self, job: tuple[bytes, Any]) -> np.ndarray:
        image = decode_rgb(job[0])
        return to_pixels(image.crop(crop_box(image.size, self.crop, job[1])), self.size)


def crop_box(size: tuple[int, int], least: float, chance: Sequence[float]) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of a random resized crop [torchvision RandomResizedCrop, aspect 3/4 to 4/3]."""
    width, height = size
    if least >= 1:
        return 0, 0, width, height
    area = width * height * (least + (1 - least) * chance[0])
    stretch = math.exp((2 * chance[1] - 1) * math.log(4 / 3)) ** 0.5
    w, h = min(width, round(area**0.5 * stretch)), min(height, round(area**0.5 / stretch))
    left, top = int(chance[2] * (width - w + 1)), int(chance[3] * (height - h + 1))
    return left, top, left + w, top + h


class Source:
    """Every batch of a training run, by step; the next one is made while the model works on this one."""

    def __init__(
        self, products: Products, encoder: DualEncoder, pictures: Pictures, config: TrainerConfig,
        needs: frozenset[Key], negatives: pd.DataFrame | None = None, text_features: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.products, self.pictures, self.config, self.needs = products, pictures, config, needs
        self.candidates = Candidates(negatives, products.row_ids) if negatives is not None else None
        captions = [text for pair in products.captions for text in pair if text is not None]
        self.texts = Texts(captions + (self.candidates.texts if self.candidates else []), encoder)
        own = [[self.texts.place.get(t, -1) if t else -1 for t in pair] for pair in products.captions]
        self.own = np.array(own, dtype=np.int64)
        self.negative_places = np.array([self.texts.place[t] for t in self.candidates.texts] if self.candidates else [])
        self.text_features = text_features
        self.plan = [
            (epoch, positions)
            for epoch in range(config.epochs)
            for positions in epoch_batches(products.groups, config.batch, config.seed, epoch)
        ]
        if not self.plan:
            kinds = len(set(products.groups.tolist()))
            raise UserError(
                f"trainer.batch: {config.batch} is more than the {kinds} distinct training products; lower it."
            )
        self._drawn: tuple[int, Any, Any] = (-1, None, None)
        self._pool = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Batch]] | None = None

    @property
    def steps(self) -> int:
        return len(self.plan)

    def starts_epoch(self, step: int) -> int | None:
        """The epoch whose first step this is, or None."""
        epoch = self.plan[step][0]
        return epoch if step == 0 or self.plan[step - 1][0] != epoch else None

    def row_ids(self, step: int) -> list[str]:
        """The products of a step's batch."""
        return [self.products.row_ids[p] for p in self.plan[step][1].tolist()]

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        ready = self._ahead[1].result() if self._ahead and self._ahead[0] == step else self._make(step)
        self._ahead = (step + 1, self._pool.submit(self._make, step + 1)) if step + 1 < self.steps else None
        return ready

    def close(self) -> None:
        """Stop making batches."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, step: int) -> Batch:
        epoch, positions = self.plan[step]
        if self._drawn[0] != epoch:
            count, seed = len(self.products.row_ids), self.config.seed
            self._drawn = (epoch, draws(count, 1 + len(TYPES), seed, epoch), crops(count, seed, epoch))
        chance = self._drawn[1][positions]
        kinds = caption_kinds(self.own[positions], chance[:, 0], self.config.title_share)
        batch: dict[str, Any] = {"image": self.pictures.take(positions, self._drawn[2])}
        places = self.own[positions, kinds]
        if "caption" in self.needs:
            batch["caption"] = self.texts.take(places)
        if self.text_features is not None:
            batch["text_features"] = self.text_features[places]
        if "negatives" in self.needs and self.candidates is not None:
            drawn, valid = self.candidates.draw(positions, kinds, chance[:, 1:])
            batch["negatives"] = (self.texts.take(self.negative_places[drawn[valid]]), torch.from_numpy(valid))
        return batch


def caption_kinds(own: Integers, chance: Any, title_share: float) -> Integers:
    """0 (title) or 1 (derived) per product; a product that lacks one shows the other. `own` (B, 2), -1 absent."""
    wanted = (chance >= title_share).astype(np.int64)
    rows = np.arange(len(own))
    return np.where(own[rows, wanted] >= 0, wanted, 1 - wanted)
