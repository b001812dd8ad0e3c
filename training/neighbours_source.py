"""NegCLIP's batches: every row comes with a product whose picture is one of the nearest, and with text negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from data.params import UserError
from data.text import clean
from training.config import TrainerConfig
from training.encoder import DualEncoder, embed_images
from training.sampling import Integers
from training.source import IMAGES, NEGATIVES, Pictures, Products, Source, load_products, product_pictures
from training.task import DATASET, HARD, Batch, Task
from training.texts import KINDS, caption_kinds, sentence_features

SWAPS = "swaps.parquet"
BLOCK = 1024


class NeighboursSource(Source):
    """Batches with `hard_image`, `hard_caption` and `negatives`; see `methods/negclip.py`.

    Args:
        negatives: candidates by row_id and caption kind, as `Candidates` reads them; their types do not matter here.
        nearest: (N, K) positions of the products with the nearest pictures, of other families.
    """

    def __init__(
        self, products: Products, encoder: DualEncoder, pictures: Pictures, config: TrainerConfig,
        negatives: pd.DataFrame, nearest: Integers,
    ) -> None:  # fmt: skip
        super().__init__(products, encoder, pictures, config, frozenset({"image", "caption"}), negatives)
        self.nearest = nearest

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        batch: dict[str, Any] = dict(super()._make(step, positions, places))
        hard = self._neighbours(step)[places]
        batch["hard_image"] = self.pictures.take(hard, self._drawn[2])
        batch["hard_caption"] = self.texts.take(self.own[hard, self._kinds(hard)])
        both = np.stack([positions, hard], 1)
        drawn, valid = self._negatives(both.ravel())
        batch["negatives"] = (self.texts.take(drawn[valid]), torch.from_numpy(valid.reshape(both.shape)))
        return batch

    def _neighbours(self, step: int) -> Integers:
        """(B,) the product whose picture is each row's image negative; all rows, for none may come twice."""
        positions = self.plan[step][1]
        return draw_neighbours(self.nearest[positions], self._drawn[1][positions, 2], self.products.groups, positions)

    def _kinds(self, positions: Integers) -> Integers:
        return caption_kinds(self.own[positions], self._drawn[1][positions, 0], self.config.title_share)

    def _negatives(self, positions: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Places of the text negatives that this epoch draws of the products' captions, and whether there are any."""
        assert self.candidates is not None
        kinds = self._kinds(positions)
        counts = self.candidates.counts[positions, kinds].sum(1)  # the runs of a caption's types lie side by side
        chosen = self.candidates.starts[positions, kinds, 0] + (self._drawn[1][positions, 1] * counts).astype(np.int64)
        valid = counts > 0
        places = np.zeros(len(positions), dtype=np.int64)
        places[valid] = self.negative_places[chosen[valid]]
        return places, valid


def neighbours_source(
    task: Task, config: TrainerConfig, name: str, text_negatives: Literal["swaps", "catalog"], count: int
) -> NeighboursSource:
    """The train split with the base model's neighbours: `task.encoder` is the base model when a training starts."""
    products = load_products(DATASET, "train")
    pictures = product_pictures(task.encoder, products, config, name)
    table = swap_candidates(products) if text_negatives == "swaps" else pd.read_parquet(HARD / NEGATIVES)
    features = embed_images(task.encoder, DATASET / IMAGES, products.image_keys, name)
    derived = pd.factorize(np.array([str(pair[1] or row) for row, pair in enumerate(products.captions)]))[0]
    found = nearest(features, [products.groups, derived], count)
    made = NeighboursSource(products, task.encoder, pictures, config, table, found)
    if "text.trunk" in config.frozen:
        made.texts.features = sentence_features(task.encoder, made.texts)
    return made


def swap_candidates(products: Products) -> pd.DataFrame:
    """The swaps of every product's captions. Raises `UserError` if the negatives stage has not made any."""
    path = HARD / SWAPS
    if not path.is_file():
        raise UserError(f"{path}: not found. Make it with `dvc repro negatives`, or set text_negatives to `catalog`.")
    swaps = pd.read_parquet(path, columns=["caption", "negative"])
    shown = pd.DataFrame(
        [
            (row_id, kind, clean(text))
            for row_id, pair in zip(products.row_ids, products.captions, strict=True)
            for kind, text in zip(KINDS, pair, strict=True)
            if text is not None
        ],
        columns=["row_id", "caption_kind", "caption"],
    )
    return shown.merge(swaps, on="caption").assign(edit_type="relation")


def nearest(features: npt.NDArray[np.float32], families: Sequence[Integers], count: int) -> Integers:
    """(N, count) rows with the greatest cosine similarity that share no family with a row, nearest first.

    Args:
        features: (N, D) unit vectors.
        families: each (N,); rows with equal numbers in any of them are alike: the same product, or the same caption,
            so that the neighbour's picture would not be wrong.

    A row with fewer than `count` such neighbours has its nearest several times. Raises `UserError` if one has none.
    """
    everyone = torch.from_numpy(features)
    codes = [torch.tensor(family) for family in families]
    found = []
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        similarity = everyone[rows] @ everyone.T
        for family in codes:
            similarity.masked_fill_(family[rows, None] == family, -torch.inf)
        best = similarity.topk(min(count, len(features)), 1)
        if bool(best.values[:, 0].isneginf().any()):
            raise UserError(f"{DATASET}: all training products are of one family, so none has a neighbour. Land more.")
        found.append(torch.where(best.values.isneginf(), best.indices[:, :1], best.indices))
    return torch.cat(found).numpy()


def draw_neighbours(
    choices: Integers, chance: npt.NDArray[np.float64], groups: Integers, positions: Integers
) -> Integers:
    """One of each row's `choices` (B, K) by `chance` (B,) in [0, 1); the next one if the batch has its family already.

    Only where the batch has the families of all of them does one come twice.
    """
    taken = set(groups[positions].tolist())
    drawn = []
    for row, first in zip(choices.tolist(), (chance * choices.shape[1]).astype(np.int64).tolist(), strict=True):
        turned = row[first:] + row[:first]
        chosen = next((p for p in turned if groups[p] not in taken), turned[0])
        taken.add(groups[chosen])
        drawn.append(chosen)
    return np.array(drawn)
