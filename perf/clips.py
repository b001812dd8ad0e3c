"""One CLIP in two forms with equal weights, ours and open_clip's, and real products to train them on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pandas as pd
import torch

from data.params import UserError
from training import openclip
from training.config import EncoderConfig, TowerSpec, TrainerConfig
from training.encoder import DualEncoder
from training.source import IMAGES, Products, load_products
from training.task import DATASET

SMALL: dict[str, Any] = {  # 19 million parameters, most of them word embeddings
    "embed_dim": 256,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 256, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
B32: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def ours(config: dict[str, Any]) -> DualEncoder:
    """Our dual encoder of these sizes, with random weights."""
    torch.manual_seed(0)
    common = {"embed_dim": config["embed_dim"], "quick_gelu": True}
    side = config["vision_cfg"]["image_size"]
    image = TowerSpec(kind="open_clip", arch="random", mean=openclip.MEAN, std=openclip.STD,
                      shape={**common, "vision_cfg": config["vision_cfg"]})  # fmt: skip
    text = TowerSpec(kind="open_clip", arch="random", shape={**common, "text_cfg": config["text_cfg"]})
    spec = EncoderConfig(
        image_size=(side, side), embed_dim=config["embed_dim"], max_tokens=77, image=image, text=text
    )  # fmt: skip
    return DualEncoder(spec, openclip.tokenizer())


def theirs(config: dict[str, Any], encoder: DualEncoder) -> Any:
    """open_clip's model of these sizes, with the weights of `encoder`."""
    from open_clip.model import CustomTextCLIP

    model = CustomTextCLIP(**copy.deepcopy(config), quick_gelu=True, output_dict=True)
    image = {f"visual.{name}": value for name, value in encoder.image.trunk.open_clip_state().items()}
    text = {f"text.{name}": value for name, value in encoder.text.trunk.open_clip_state().items()}
    model.load_state_dict({**image, **text, "logit_scale": encoder.logit_scale.detach()}, strict=True)
    return model


def trainer(**changes: Any) -> TrainerConfig:
    """Settings both sides are given: constant rate, bf16 under autocast, no checkpoints on the way."""
    start = TrainerConfig(
        epochs=1, lr=1e-4, warmup=1, schedule="constant", threads=torch.get_num_threads(), title_share=1.0,
        checkpoint_every=10**9, device="cpu",
    )  # fmt: skip
    return dataclasses.replace(start, **changes)


def products(count: int, side: int = 224) -> Products:
    """The first `count` train products whose picture has `side` x `side` pixels and that have a title."""
    if not (DATASET / "products.parquet").exists():
        raise UserError("perf: store/dataset is missing; run `make demo` first, benches use its products.")
    found = load_products(DATASET, "train")
    sizes = pd.read_parquet(DATASET / IMAGES, columns=["image_key", "width", "height"]).set_index("image_key")
    fits = set(sizes.index[(sizes.width == side) & (sizes.height == side)])
    rows = [i for i, key in enumerate(found.image_keys) if key in fits and found.captions[i][0]][:count]
    return Products(
        row_ids=[found.row_ids[i] for i in rows], groups=found.groups[rows],
        image_keys=[found.image_keys[i] for i in rows], captions=[found.captions[i] for i in rows],
    )  # fmt: skip


def adamw(model: torch.nn.Module, config: TrainerConfig, *, fused: bool) -> torch.optim.AdamW:
    """open_clip_train's optimiser: weight decay for matrices only. Theirs is not fused."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
