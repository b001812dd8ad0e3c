"""Settings of everything under training/: frozen dataclasses that `params.yaml` is read into, strictly."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSpec:
    """Architecture of one tower, complete enough to rebuild it without its pretrained file.

    Attributes:
        kind: `timm` or `open_clip` for images, `bert` or `open_clip` for texts.
        arch: timm model name, open_clip model name, or `bert`.
        shape: what the architecture's constructor needs besides the name (BERT sizes, open_clip tower config).
        levels: timm only: feature levels (0 is the finest) pooled beside the last layer.
        hidden: width of the projection head's hidden layer; 0 for a linear head. open_clip towers have no extra head.
        mean, std: images only, in units of the uint8 pixels: the tower sees (pixel - mean) / std.
    """

    kind: Literal["timm", "bert", "open_clip"]
    arch: str
    shape: dict[str, Any] = dataclasses.field(default_factory=dict)
    levels: tuple[int, ...] = ()
    hidden: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """`model.json`: `image_size` is (height, width) in pixels, `max_tokens` the most a caption may have."""

    image_size: tuple[int, int]
    embed_dim: int
    max_tokens: int
    image: TowerSpec
    text: TowerSpec
