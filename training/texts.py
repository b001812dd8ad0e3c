"""Captions and hard negatives of a training run, tokenised once and drawn by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data import stage
from training.encoder import DualEncoder
from training.sampling import TYPES, Integers
from training.task import Tokens

KINDS = ("title", "derived")  # caption kinds, in the order of the columns of `Products.captions`
BATCH = 256


class Texts:
    """Distinct texts, tokenised once into one ragged array. `features` (N, W): of a frozen text trunk, where known."""

    features: Tensor | None = None

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
        features = None if self.features is None else self.features[places]
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), features)


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


@torch.inference_mode()
def sentence_features(encoder: DualEncoder, texts: Texts) -> Tensor:
    """Frozen text trunk features (N, W) of every distinct text: computed once, not at every step."""
    order = np.argsort(texts.lengths, kind="stable")
    made = torch.zeros(len(order), encoder.text.trunk.width)
    starts = range(0, len(order), BATCH)
    for start in stage.progress(starts, what=f"batches of {BATCH} texts", label="frozen text trunk"):
        rows = order[start : start + BATCH]
        tokens = texts.take(rows)
        made[rows] = encoder.text.trunk(tokens.ids, tokens.mask)
    return made.clone()  # a tensor made under inference mode may not enter autograd


def caption_kinds(own: Integers, chance: Any, title_share: float) -> Integers:
    """0 (title) or 1 (derived) per product; a product that lacks one shows the other. `own` (B, 2), -1 absent."""
    wanted = (chance >= title_share).astype(np.int64)
    rows = np.arange(len(own))
    return np.where(own[rows, wanted] >= 0, wanted, 1 - wanted)
