"""Small encoders with a `$` in their vocabulary, and captions with known keywords, for the LinCIR tests."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from data import corpus
from data.keywords import Keyword
from training import openclip
from training.composing.captions import Captions, CaptionSource, cached_targets
from training.config import EncoderConfig, TowerSpec, TrainerConfig
from training.encoder import DualEncoder
from training.methods.lincir import LinCir
from training.steps import backward
from training.trainer import make_optimiser

SETTINGS: dict[str, Any] = {
    "batch": 16, "epochs": 1, "lr": 1e-3, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "warmup": 0,
    "schedule": "constant", "precision": "fp32", "threads": 1,
}  # fmt: skip
NAMES = ("cat", "dog", "shirt", "bag", "shoe", "watch", "scarf", "ring", "dress", "belt")
LOOKS = ("red", "blue", "green", "grey", "old", "new", "small", "large", "plain", "striped")
VERBS = ("lies", "stands", "hangs", "waits", "falls")
PLACES = ("under", "over", "near", "behind")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "$", "a", "photo", "of", "that", "is", "in", "for", *NAMES, *LOOKS,
         *VERBS, *PLACES)  # fmt: skip
IMAGE = {"vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}}


def clip_encoder(layers: int = 2) -> DualEncoder:
    """A CLIP of random weights with its real vocabulary; texts have 77 places."""
    torch.manual_seed(4)
    common = {"embed_dim": 16, "quick_gelu": True}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": layers}
    config = EncoderConfig(
        image_size=(32, 32), embed_dim=16, max_tokens=77,
        image=TowerSpec(kind="open_clip", arch="tiny", shape={**common, **IMAGE}, mean=openclip.MEAN, std=openclip.STD),
        text=TowerSpec(kind="open_clip", arch="tiny", shape={**common, "text_cfg": text}),
    )  # fmt: skip
    return DualEncoder(config, openclip.tokenizer()).eval()


def bert_encoder(layers: int = 2, width: int = 32, embed: int = 16, gain: float = 4.0) -> DualEncoder:
    """A BERT text tower of random weights over `WORDS`, whose embeddings have coordinates of order 1."""
    torch.manual_seed(6)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    shape = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * width,
        "vocab_size": len(WORDS), "max_position_embeddings": 32, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    image = {"embed_dim": embed, "quick_gelu": True, **IMAGE}
    config = EncoderConfig(
        image_size=(32, 32), embed_dim=embed, max_tokens=24,
        image=TowerSpec(kind="open_clip", arch="tiny", shape=image, mean=openclip.MEAN, std=openclip.STD),
        text=TowerSpec(kind="bert", arch="bert", shape=shape, dropout=0.1),
    )  # fmt: skip
    encoder = DualEncoder(config, tokenizer).eval()
    with torch.no_grad():
        encoder.text.head.linear.weight.mul_(gain)
    return encoder


def captions(count: int) -> list[tuple[str, list[Keyword]]]:
    """ "red cat lies near blue bag": the two noun phrases are the keywords."""
    phrases = list(itertools.product(LOOKS, NAMES))
    chance = np.random.default_rng(8)
    made = {}
    while len(made) < count:
        first, second = (" ".join(phrases[i]) for i in chance.integers(len(phrases), size=2))
        middle = f"{chance.choice(VERBS)} {chance.choice(PLACES)}"
        text = f"{first} {middle} {second}"
        start = len(first) + len(middle) + 2
        made[text] = [Keyword(0, len(first), first), Keyword(start, len(text), second)]
    return list(made.items())


def write_corpus(folder: Path, rows: list[tuple[str, list[Keyword]]], held_out: int = 8) -> None:
    """`corpus.parquet` of these captions, the last `held_out` of them held out."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [
        {"caption": text, "kind": "title", "products": 1, "held_out": i >= len(rows) - held_out,
         "keywords": [keyword._asdict() for keyword in keywords]}
        for i, (text, keywords) in enumerate(rows)
    ]  # fmt: skip
    corpus.write(table, folder / corpus.CORPUS)


class MeanToy(nn.Module):
    """The specification's toy text tower: the state at p is the mean of the embeddings 0..p, read at the last token.

    Words: 0 start (0, 0), 1 "a" (4, 0), 2 "b" (0, 4), 3 end (0, 0), 4 the pseudo word's place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0], [9.0, 9.0]])

    def look_up(self, ids: Tensor) -> Tensor:
        return self.words[ids]

    def encode(self, words: Tensor, mask: Tensor) -> Tensor:
        means = words.cumsum(1) / torch.arange(1, words.shape[1] + 1)[:, None]
        return means[torch.arange(len(means)), mask.sum(1) - 1]


def attributes(folder: Path) -> None:
    """Give the tiny catalog the attributes that composed questions are made of."""
    path = folder / "store/dataset/products.parquet"
    table = pd.read_parquet(path)
    table["gender"] = ["Men" if i % 2 else "Women" for i in range(len(table))]
    table["usage"] = "Casual"
    pq.write_table(pa.Table.from_pandas(table), path)


def with_pseudo(path: Path) -> None:
    """Make `$` a word of a tiny model's tokenizer in place of `#`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    if "$" not in vocabulary:
        vocabulary["$"] = vocabulary.pop("#")
        path.write_text(json.dumps(content), encoding="utf-8")


def tokenised(encoder: DualEncoder, rows: list[tuple[str, list[Keyword]]]) -> Captions:
    return Captions(rows, encoder, "offsets")


def lincir(encoder: DualEncoder, seed: int = 0, **config: Any) -> LinCir:
    torch.manual_seed(seed)
    made = LinCir(LinCir.Config(**config), encoder)
    made.seed, made.rows = 0, SETTINGS["batch"]
    return made.train()


def source(
    task: LinCir, rows: list[tuple[str, list[Keyword]]], steps: int, cached: bool = True, **over: Any
) -> CaptionSource:
    config = TrainerConfig(**{**SETTINGS, **over})
    found = tokenised(task.encoder, rows)
    targets = cached_targets(task, found, config.precision, "unit") if cached else None
    return CaptionSource(found, config, targets, steps)


def train(task: LinCir, batches: CaptionSource, lr: float = 1e-3) -> list[float]:
    """The trainer's step without its loop; the losses."""
    task.rows = batches.config.batch
    optimiser = make_optimiser(task, dataclasses.replace(batches.config, lr=lr))
    losses = []
    for step in range(batches.steps):
        losses.append(backward(task, batches.batches(step), step)[0]["loss"].item())
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return losses
