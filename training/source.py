"""Where batches come from: the products of one split, their captions and negatives as tokens, their pictures.

Every text is tokenised once; what an epoch shows of a product (title or derived caption, which negatives, which crop)
is a function of (seed, epoch), so any step's batch can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.params import UserError
from training import distributed
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.features import read_jpegs, trunk_features
from training.loader import Loader
from training.sampling import TYPES, Integers, crops, draws, epoch_batches
from training.task import DATASET, HARD, Batch, Key, Task
from training.texts import Candidates, Texts, caption_kinds, sentence_features

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
        self.loader = Loader([found[key] for key in keys], encoder.config.image_size)
        self.crop = crop

    def take(self, positions: Integers, chance: Any) -> Tensor:
        return self.loader.take(
            positions.tolist(), lambda row, size: crop_box(size, self.crop, chance[positions[row]])
        )  # fmt: skip


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


class Batches(Protocol):
    """What the training loop needs of a source of batches. A step's batch is a function of settings and state."""

    @property
    def steps(self) -> int: ...

    def starts_epoch(self, step: int) -> int | None:
        """The epoch whose first step this is, or None."""

    def progress(self, step: int) -> float:
        """Epochs done before this step: 1.5 is half through the second."""

    def row_ids(self, step: int) -> list[str]:
        """Names of the rows of the whole batch of a step."""

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, on the CPU."""

    def observe(self, step: int, outputs: Outputs) -> None:
        """Take note of what the model made of a step's rows (all ranks'), for later batches to depend on."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs to give the same batches."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""

    def close(self) -> None:
        """Stop making batches."""


class Source:
    """Every batch of a training run, by step; the next one is made while the model works on this one."""

    def __init__(
        self, products: Products, encoder: DualEncoder, pictures: Pictures, config: TrainerConfig,
        needs: frozenset[Key], negatives: pd.DataFrame | None = None,
    ) -> None:  # fmt: skip
        self.products, self.pictures, self.config, self.needs = products, pictures, config, needs
        self.candidates = Candidates(negatives, products.row_ids) if negatives is not None else None
        captions = [text for pair in products.captions for text in pair if text is not None]
        self.texts = Texts(captions + (self.candidates.texts if self.candidates else []), encoder)
        own = [[self.texts.place.get(t, -1) if t else -1 for t in pair] for pair in products.captions]
        self.own = np.array(own, dtype=np.int64)
        places = [self.texts.place[t] for t in self.candidates.texts] if self.candidates else []
        self.negative_places = np.array(places, dtype=np.int64)
        self.pieces = pieces_of(config)
        self.plan = self._plan()
        if not self.plan:
            kinds = len(set(products.groups.tolist()))
            raise UserError(
                f"trainer.batch: {config.batch} is more than the {kinds} distinct training products; lower it."
            )
        self._drawn: tuple[int, Any, Any] = (-1, None, None)
        self._pool = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[list[Batch]]] | None = None

    @property
    def steps(self) -> int:
        return len(self.plan)

    def starts_epoch(self, step: int) -> int | None:
        epoch = self.plan[step][0]
        return epoch if step == 0 or self.plan[step - 1][0] != epoch else None

    def progress(self, step: int) -> float:
        return self.config.epochs * step / self.steps

    def row_ids(self, step: int) -> list[str]:
        return [self.products.row_ids[p] for p in self.plan[step][1].tolist()]

    def batches(self, step: int) -> list[Batch]:
        ready = self._ahead[1].result() if self._ahead and self._ahead[0] == step else self._pieces(step)
        planned = step + 1 < len(self.plan)
        self._ahead = (step + 1, self._pool.submit(self._pieces, step + 1)) if planned else None
        return ready

    def sample(self, count: int) -> Batch:
        """The first `count` products that epoch 0 shows, as one batch."""
        shown = np.concatenate([positions for epoch, positions in self.plan if epoch == 0])[:count]
        return self._make(0, shown, np.arange(len(shown)))

    def observe(self, step: int, outputs: Outputs) -> None:
        """Batches here depend on (seed, epoch) alone."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is none."""

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _plan(self) -> list[tuple[int, Integers]]:
        """(epoch, positions of the products) of every step."""
        return [
            (epoch, positions)
            for epoch in range(self.config.epochs)
            for positions in epoch_batches(self.products.groups, self.config.batch, self.config.seed, epoch)
        ]

    def _pieces(self, step: int) -> list[Batch]:
        positions = self.plan[step][1]
        return [self._make(step, positions[rows], np.arange(rows.start, rows.stop)) for rows in self.pieces]

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        """The rows `places` of a step's batch, which show the products at `positions`."""
        epoch = self.plan[step][0]
        if self._drawn[0] != epoch:
            count, seed = len(self.products.row_ids), self.config.seed
            self._drawn = (epoch, draws(count, 1 + len(TYPES), seed, epoch), crops(count, seed, epoch))
        chance = self._drawn[1][positions]
        kinds = caption_kinds(self.own[positions], chance[:, 0], self.config.title_share)
        texts = self.own[positions, kinds]
        batch: dict[str, Any] = {"place": torch.from_numpy(places)}
        if "image" in self.needs:
            batch["image"] = self.pictures.take(positions, self._drawn[2])
        if "caption" in self.needs:
            batch["caption"] = self.texts.take(texts)
        if "negatives" in self.needs and self.candidates is not None:
            drawn, valid = self.candidates.draw(positions, kinds, chance[:, 1:])
            batch["negatives"] = (self.texts.take(self.negative_places[drawn[valid]]), torch.from_numpy(valid))
        for key, values in (("product", self.products.groups[positions]), ("text", texts), ("index", positions)):
            if key in self.needs:
                batch[key] = torch.from_numpy(values)
        return batch


def product_source(task: Task, config: TrainerConfig, name: str, source: type[Source] = Source) -> Source:
    """Batches of the train split with the keys the method needs."""
    products = load_products(DATASET, "train")
    pictures = product_pictures(task.encoder, products, config, name)
    negatives = pd.read_parquet(HARD / NEGATIVES) if "negatives" in task.needs else None
    made = source(products, task.encoder, pictures, config, task.needs, negatives)
    if "text.trunk" in config.frozen:
        made.texts.features = sentence_features(task.encoder, made.texts)
    return made


def product_pictures(encoder: DualEncoder, products: Products, config: TrainerConfig, name: str) -> Pictures:
    """Cached features where the image trunk is frozen, else pixels."""
    if "image.trunk" in config.frozen:
        return Features(encoder, DATASET, products.image_keys, name)
    return Pixels(encoder, DATASET, products.image_keys, config.crop)


def pieces_of(config: TrainerConfig) -> list[slice]:
    """Rows of the global batch in each micro-batch of this rank."""
    count = distributed.size() * config.accumulate
    if config.batch % count:
        raise UserError(
            f"trainer.batch: {config.batch} does not divide into {distributed.size()} process(es) x "
            f"{config.accumulate} micro-batch(es); choose a multiple of {count}."
        )
    each, first = config.batch // count, distributed.rank() * config.accumulate
    return [slice(i * each, (i + 1) * each) for i in range(first, first + config.accumulate)]
