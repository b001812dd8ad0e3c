"""A SyncMask in small, of random weights: 32 px pictures of 4 x 4 patches, two layers of each kind, 60 words."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from training.config import EncoderConfig, TowerSpec
from training.encoder import DualEncoder
from training.fused.fusion import initialise
from training.fused.pretrained import Towers
from training.methods.syncmask import SyncMask
from training.task import Batch, Tokens

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(f"w{i}" for i in range(50)), *(f"##p{i}" for i in range(5))]
WIDTH, BATCH, PATCHES = 32, 4, 16
IMAGE = TowerSpec(
    kind="vit", arch="tiny", mean=(127.0,) * 3, std=(64.0,) * 3,
    shape={"width": WIDTH, "layers": 2, "heads": 4, "inner": 64, "patch": 8, "grid": [4, 4], "eps": 1e-6,
           "layer_scale": False},
)  # fmt: skip
TEXT = TowerSpec(
    kind="bert", arch="bert",
    shape={"vocab_size": len(WORDS), "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 64, "max_position_embeddings": 32, "layer_norm_eps": 1e-12, "pool": "cls"},
)  # fmt: skip


def encoder() -> DualEncoder:
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = EncoderConfig(image_size=(32, 32), embed_dim=16, max_tokens=16, image=IMAGE, text=TEXT)
    built = DualEncoder(config, made)
    built.apply(initialise)
    return built


def task(seed: int = 0, rows: int = BATCH, **config: Any) -> SyncMask:
    """A task ready for its first step."""
    torch.manual_seed(seed)
    settings = SyncMask.Config(**{"queue": 16, "fusion_layer": 2, "towers": Towers(text_layers=4), **config})
    made = SyncMask(settings, encoder())
    made.begin()
    made.seed, made.rows = seed, rows
    return made.train()


def batch(made: SyncMask, texts: list[str], pixels: Tensor, products: list[int] | None = None) -> Batch:
    """A batch of pictures uint8 (B, 3, 32, 32) with texts; every row a product and text of its own unless told."""
    rows = torch.arange(len(texts))
    return {
        "image": pixels, "caption": Tokens(*made.encoder.tokenize(texts)), "place": rows, "text": rows,
        "product": rows if products is None else torch.tensor(products),
    }  # fmt: skip


def pictures(count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)


def some(made: SyncMask, seed: int = 0) -> Batch:
    texts = ["w1 w2 w3 w4", "w5 w6p1 w7", "w8 w9 w10 w11 w12p2p3", "w13 w14 w15 w16 w17 w18"]
    return batch(made, texts, pictures(len(texts), seed))


def clone(found: Batch, **changes: Any) -> Batch:
    return {**found, **changes}


def hide(found: Batch, place: int, word: int) -> Batch:
    """The batch with another word at position `place` of every text."""
    ids = found["caption"].ids.clone()
    ids[:, place] = word
    return clone(found, caption=dataclasses.replace(found["caption"], ids=ids))
