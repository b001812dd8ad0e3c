"""The contract between a method and the trainer: what every method file under methods/ provides.

The trainer knows only this class. A method is a `Task` with a frozen `Config`; it turns a batch into a loss and owns
its encoders; it never sees an optimiser, a device, a file or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from training.encoder import DualEncoder

Key = Literal["image", "caption", "negatives", "text_features"]
Batch = Mapping[str, Any]
BUCKETS = 3  # length groups per text pass: sorted by length and cut, each group is padded to its own longest only


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: ids and mask int64 (N, L), L the longest of these texts."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Tokens:
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class ExportSpec:
    """What leaves training: the endpoints a trained model can hold, and the encoder functions that serve them."""

    endpoints: tuple[str, ...]
    functions: tuple[str, ...]


class Task(nn.Module):
    """A method in training.

    Batches hold the keys of `needs`, on the model's device, B products each:
        image: trunk features float32 (B, F) where the trunk is frozen, else pixels uint8 (B, 3, H, W);
        caption: `Tokens` of B captions; text_features: float32 (B, W) of B captions, from a frozen text trunk;
        negatives: (`Tokens` of the V valid ones, sample-major; validity bool (B, 4), in the order of `sampling.TYPES`).
    """

    Config: ClassVar[type]
    needs: ClassVar[frozenset[Key]]

    def __init__(self, config: Any, encoder: DualEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.precision = torch.float32

    @classmethod
    def build(cls, config: Any, encoder: DualEncoder) -> Task:
        """The task for `config`, starting from `encoder` (the base model)."""
        return cls(config, encoder)

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Scalars by name; `loss` is differentiated, the other parts are logged."""
        raise NotImplementedError

    def on_epoch(self, epoch: int) -> None:
        """Called before the first step of every epoch, also of a resumed one only if it was not called before."""

    def after_step(self) -> None:
        """Called after the optimiser. Keeps s = exp(logit_scale) in [1, 100] [open_clip_train/train.py]."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(0, math.log(100))

    def encoders(self) -> dict[str, DualEncoder]:
        """The encoders to save and evaluate, by name; `model` is the one that goes to the model folder."""
        return {"model": self.encoder}

    def export_spec(self) -> ExportSpec:
        """CLIP-family methods serve `search` with two functions."""
        return ExportSpec(endpoints=("search",), functions=("encode_image", "encode_text"))

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors besides parameters and buffers that a resumed run needs."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `extra_state` gave."""

    def images(self, batch: Batch) -> Tensor:
        """Image embeddings (B, D), from cached features or from pixels."""
        if batch["image"].dtype != torch.uint8:
            return self.encoder.project_image(batch["image"])
        with self._autocast():
            features = self.encoder.image.trunk(batch["image"])
        return self.encoder.project_image(features.float())

    def texts(self, *groups: Tokens) -> Tensor:
        """Embeddings (N, D) of all texts of `groups` in order, padded no longer than their length bucket needs."""
        lengths = torch.cat([g.mask.sum(1) for g in groups])
        longest = int(lengths.max())
        ids, mask = (
            torch.cat([_fit(getattr(g, name), longest) for g in groups]) for name in ("ids", "mask")
        )  # fmt: skip
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.chunk(BUCKETS):
            width = int(lengths[rows].max())
            with self._autocast():
                parts.append(self.encoder.text.trunk(ids[rows, :width], mask[rows, :width]).float())
        features = torch.cat(parts)[order.argsort()]
        return self.encoder.project_text(features)

    def scale(self) -> Tensor:
        """s = exp(logit_scale)."""
        return self.encoder.logit_scale.exp()

    def _autocast(self) -> torch.autocast:
        device = self.encoder.logit_scale.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision is torch.bfloat16)


def _fit(array: Tensor, width: int) -> Tensor:
    """(N, L) cut or zero-padded to (N, width)."""
    return nn.functional.pad(array, (0, width - array.shape[1]))
