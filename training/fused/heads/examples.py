"""Labelled examples of a head: one picture or two and a text, in batches for training and in blocks for answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.params import UserError
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.official.contract import Picture, Vectors
from training.official.pictures import pixels
from training.sampling import Integers, epoch_batches
from training.source import Source, pieces_of
from training.task import Batch, Tokens
from training.texts import Texts

if TYPE_CHECKING:
    from training.fused.heads.head import Head

KEPT_BYTES = 1 << 30  # of decoded pictures, past which each is decoded whenever it is shown
BLOCK = 64  # examples answered at once
GREY = 127
Shown = tuple[Picture | None, ...]  # the picture or pictures of one example


@dataclass(frozen=True)
class Examples:
    """N examples. `pictures` has one or two of each; `labels` are places among the classes."""

    ids: list[str]
    pictures: list[tuple[Picture, ...]]
    texts: list[str]
    labels: Integers

    @classmethod
    def of(cls, items: pa.Table, classes: Sequence[str]) -> Examples:
        """Rows of a table with `item_id`, `pictures` (list of paths), `text` and `label`.

        Raises `UserError` for a label that is no class.
        """
        place = {name: number for number, name in enumerate(classes)}
        labels = items["label"].to_pylist()
        for row, label in zip(items["item_id"].to_pylist(), labels, strict=True):
            if label not in place:
                raise UserError(f"{row}: label `{label}` is none of {', '.join(classes[:5])}. Fetch the files again.")
        return cls(
            items["item_id"].to_pylist(),
            [tuple(Picture(path) for path in paths) for paths in items["pictures"].to_pylist()],
            items["text"].to_pylist(), np.array([place[label] for label in labels], np.int64),
        )  # fmt: skip


@dataclass
class Shelf:
    """Decoded pictures of one size, kept while they are few."""

    root: Path
    size: tuple[int, int]
    kept: dict[Picture, np.ndarray] = field(default_factory=dict)

    def take(self, rows: Sequence[Shown]) -> Tensor:
        """Pixels uint8 (B, P, 3, H, W); a picture that is absent is plain grey.

        Raises `UserError` naming a picture that cannot be read.
        """
        asked = list(dict.fromkeys(picture for row in rows for picture in row if picture))
        new = [picture for picture in asked if picture not in self.kept]
        found = dict(zip(new, pixels(new, self.root, self.size), strict=True))
        room = KEPT_BYTES // (3 * self.size[0] * self.size[1]) - len(self.kept)
        self.kept |= dict(list(found.items())[: max(room, 0)])
        grey = np.full((*self.size, 3), GREY, np.uint8)
        shown = [[found.get(p, self.kept.get(p, grey)) if p else grey for p in row] for row in rows]
        return torch.from_numpy(np.array(shown)).movedim(-1, -3)


class ExampleSource(Source):
    """Batches of examples in place of products: every epoch in an order of its own, full batches only."""

    def __init__(self, examples: Examples, encoder: DualEncoder, config: TrainerConfig, root: Path) -> None:
        self.examples, self.config = examples, config
        self.shelf = Shelf(root, encoder.config.image_size)
        self.texts = Texts(examples.texts, encoder)
        self.places = np.array([self.texts.place[text] for text in examples.texts], np.int64)
        self.pieces = pieces_of(config)
        everyone = np.arange(len(examples.ids))
        self.plan = [
            (epoch, rows)
            for epoch in range(config.epochs)
            for rows in epoch_batches(everyone, config.batch, config.seed, epoch)
        ]
        if not self.plan:
            raise UserError(f"trainer.batch: {config.batch} is more than the {len(everyone)} examples; lower it.")
        self._pool = ThreadPoolExecutor(1)
        self._ahead = None

    def row_ids(self, step: int) -> list[str]:
        return [self.examples.ids[row] for row in self.plan[step][1].tolist()]

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        return {
            "place": torch.from_numpy(places),
            "image": self.shelf.take([self.examples.pictures[row] for row in positions]),
            "caption": self.texts.take(self.places[positions]),
            "label": torch.from_numpy(self.examples.labels[positions]),
        }


@dataclass
class Held:
    """Examples that a head in training is asked between epochs."""

    examples: Examples
    shelf: Shelf

    def accuracy(self, head: Head) -> float:
        """Share answered right."""
        found = answer(head, self.examples.pictures, self.examples.texts, self.shelf)
        return float((found.argmax(1) == self.examples.labels).mean())


@torch.inference_mode()
def answer(head: Head, pictures: Sequence[Shown], texts: Sequence[str], shelf: Shelf) -> Vectors:
    """Probabilities float32 (N, C)."""
    parts, device = [np.zeros((0, len(head.config.classes)), np.float32)], head.encoder.logit_scale.device
    for start in range(0, len(texts), BLOCK):
        rows = slice(start, start + BLOCK)
        tokens = Tokens(*head.encoder.tokenize(texts[rows])).to(device)
        logits = head.logits(shelf.take(pictures[rows]).to(device), tokens)
        parts.append(logits.softmax(1).cpu().numpy())
    return np.concatenate(parts)
