"""The tiny SIMLA of the specification's tests: 4 x 4 patches of 8 pixels, width 32, 40 words, a lookup as codes."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from training.config import EncoderConfig, TowerSpec
from training.encoder import DualEncoder
from training.fused.fusion import initialise
from training.methods.simla import Simla
from training.task import Tokens

GRID, PATCH, CODES, ROWS = (4, 4), 8, 24, 4
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = SPECIALS + [f"w{i}" for i in range(35)]
VIT = {"width": 32, "layers": 2, "heads": 4, "inner": 64, "patch": PATCH, "eps": 1e-6, "layer_scale": False,
       "grid": list(GRID)}  # fmt: skip
BERT = {
    "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 32, "layer_norm_eps": 1e-12, "pool": "cls",
}  # fmt: skip


class Lookup(nn.Module):
    """Codes by the brightness of the patch's first pixel."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, 0, ::PATCH, ::PATCH].flatten(1).long() % CODES


def tokenizer(words: list[str]) -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def encoder(words: list[str] | None = None) -> DualEncoder:
    torch.manual_seed(0)
    words = words or WORDS
    image = TowerSpec(kind="vit", arch="tiny", shape=VIT, mean=(127.0,) * 3, std=(64.0,) * 3)
    text = TowerSpec(kind="bert", arch="bert", shape=BERT | {"vocab_size": len(words)})
    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    config = EncoderConfig(image_size=size, embed_dim=16, max_tokens=12, image=image, text=text)
    made = DualEncoder(config, tokenizer(words))
    made.apply(initialise)
    return made


def task(words: list[str] | None = None, **changes: Any) -> Simla:
    """The tiny method; weights ten times the usual start, so that everything has a visible effect."""
    settings = {"queue": 16, "codes": CODES, "mask_patches": 5, "mask_block": 1, "votes": 2, "keywords": 2} | changes
    made = Simla(Simla.Config(**settings), encoder(words))
    made.visual = Lookup()
    made.rows, made.seed = ROWS, 3
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim >= 2 and "words" not in name:
                parameter.mul_(5)
        made.encoder.image.trunk.mask_token.normal_()
    made.teacher.update(0.0)
    return made.train()


def batch(seed: int = 1, rows: int = ROWS, words: int = 35) -> dict[str, Any]:
    """Random pictures with captions of different lengths."""
    chance = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([9, 4, 7, 6, 8, 5, 3, 10] * rows)[:rows]
    ids = torch.randint(5, 5 + words, (rows, 10), generator=chance)
    ids[:, 0] = 2
    ids[torch.arange(rows), lengths - 1] = 3
    mask = (torch.arange(10) < lengths[:, None]).long()
    pixels = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=chance)
    return {"image": pixels, "caption": Tokens(ids * mask, mask), "place": torch.arange(rows)}


def gradients(loss: Tensor, task: Simla) -> dict[str, float]:
    """Largest gradient of each parameter; none counts as 0."""
    task.zero_grad(set_to_none=True)
    loss.backward()
    return {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in task.named_parameters()}


def step(task: Simla, **changes: object) -> dict[str, Tensor]:
    return task.training_step(batch() | changes, 7)
