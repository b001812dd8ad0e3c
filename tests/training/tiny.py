"""A workspace that trains in a second: 48 products of plain colour, towers with random weights from local files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import timm
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

ARCH = "test_efficientnet"
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "yellow": (230, 220, 40)}
ARTICLES = ("shirts", "shoes", "bags", "watches")
DIGITS = "0123456789"
WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "$", "#", *COLOURS, *ARTICLES, "for", "men", "women", "brand", ",",
    *DIGITS, *(f"##{digit}" for digit in DIGITS),
]  # fmt: skip
VIT = "test_vit"
TOWERS = {  # of the methods that build their own
    "image": VIT, "image_file": "tiny-vit.safetensors", "image_layers": 2, "grid": [2, 2], "text": "tiny-bert-wide",
    "text_layers": 4, "max_tokens": 16, "embed_dim": 8,
}  # fmt: skip
OWN = {"frozen": [], "crop": 1.0}
PARAMS = {
    "preset": "starter",
    "starter": {
        "base": {
            "image": {"arch": ARCH, "weights": "tiny.safetensors", "size": [32, 24], "levels": [0, 1],
                      "grid": [0, 2, 2], "hidden": 8, "dropout": 0.1},
            "text": {"weights": "tiny-bert", "hidden": 8, "max_tokens": 16, "dropout": 0.1},
            "embed_dim": 8,
            "align": {"epochs": 3, "batch": 8, "lr": 1e-3, "warmup": 2, "log_every": 3, "precision": "fp32",
                      "threads": 1},
        },
        "trainer": {"epochs": 3, "batch": 8, "lr": 1e-4, "head_lr": 1e-3, "warmup": 2, "log_every": 2, "threads": 1,
                    "checkpoint_every": 3, "frozen": ["image.trunk", "text.trunk.words"]},
        "methods": {
            "clip": {}, "ce_clip": {}, "negclip": {}, "cma_clip": {}, "lincir": {},
            "syncmask": {"towers": TOWERS, "trainer": OWN, "fusion_layer": 2, "queue": 16},
            "simla": {"towers": TOWERS, "trainer": OWN, "queue": 16, "codes": 16},
        },
    },
    "corpus": {"held_out": 0.1},
}  # fmt: skip


def write_workspace(folder: Path) -> None:
    """params.yaml, tower weights, store/dataset and store/negatives below `folder`."""
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    torch.manual_seed(5)
    net = timm.create_model(ARCH)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics of their own, so that folding them matters
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    safetensors.torch.save_file(net.state_dict(), folder / "tiny.safetensors")
    state = {k: v for k, v in timm.create_model(VIT).state_dict().items() if not k.startswith("head")}
    safetensors.torch.save_file(state, folder / "tiny-vit.safetensors")
    write_bert(folder / "tiny-bert")
    write_bert(folder / "tiny-bert-wide", width=64, layers=4)  # as wide as the tiny ViT
    write_store(folder / "store")


def write_bert(folder: Path, width: int = 16, layers: int = 2) -> None:
    """A Hugging Face BERT folder with random weights, and a word tokenizer."""
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    tokenizer(folder / "tokenizer.json")


def tokenizer(path: Path) -> Tokenizer:
    """WordPiece over `WORDS`, as BERT's."""
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(path))
    return made


def write_store(store: Path) -> None:
    """48 products (32 train, 8 val, 8 test), each one plain picture, with colour and article negatives."""
    rng = np.random.default_rng(3)
    products, images, negatives = [], [], []
    for i in range(48):
        colour, article = list(COLOURS)[i % 4], ARTICLES[(i // 4) % 4]
        gender = ("men", "women")[i % 2]
        stream = io.BytesIO()
        noise = rng.integers(-20, 20, (16, 12, 3))
        Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
        caption = f"{colour} {article} for {gender}"
        title = f"brand {i} {colour} {article}" if i != 1 else None
        split = "train" if i < 32 else ("val" if i < 40 else "test")
        products.append({
            "row_id": f"{i:016x}", "id": str(i), "title": title, "derived_caption": caption, "base_colour": colour,
            "article_type": article, "gender": gender, "season": ("summer", "winter")[i // 2 % 2], "usage": "casual",
            "catalog": "tiny",
            "image_key": f"{i:032x}", "group": i, "split": split,
        })  # fmt: skip
        images.append({"image_key": f"{i:032x}", "jpeg": stream.getvalue(), "width": 12, "height": 16})
        if i % 8 == 7:  # every eighth product has no negatives at all
            continue
        for kind, text in (("title", title), ("derived", caption)):
            for candidate, other in enumerate([c for c in COLOURS if c != colour][:2]):
                if text:
                    negatives.append(_negative(i, kind, text, "attribute", "colour", candidate, colour, other))
            if text and i % 2:
                other = ARTICLES[(ARTICLES.index(article) + 1) % 4]
                negatives.append(_negative(i, kind, text, "object", "article", 0, article, other))
    swaps = [
        {"caption": text, "kind": "adjective", "negative": " ".join(reversed(text.split())), "start": 0, "end": 1,
         "replacement": "x"}
        for product in products for text in (product["title"], product["derived_caption"]) if text and "for" in text
    ]  # fmt: skip
    for name, rows in (
        ("negatives/swaps", swaps),
        ("dataset/products", products),
        ("dataset/images", images),
        ("negatives/negatives", negatives),
    ):
        path = store / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path)


def _negative(
    i: int, kind: str, text: str, edit_type: str, edit: str, candidate: int, old: str, new: str
) -> dict[str, object]:
    return {
        "row_id": f"{i:016x}", "caption_kind": kind, "caption": text, "edit_type": edit_type, "edit": edit,
        "candidate": candidate, "negative": text.replace(old, new), "start": text.index(old),
        "end": text.index(old) + len(old), "original": old, "replacement": new,
    }  # fmt: skip


def _swap(text: str) -> dict[str, object]:
    """NegCLIP's swap of the first and the last word."""
    first, *inner, last = text.split()
    negative = " ".join([last, *inner, first])
    return {"caption": text, "kind": "singular_noun", "negative": negative, "start": 0, "end": len(text),
            "replacement": negative}  # fmt: skip


def change_params(folder: Path, key: str, **values: object) -> None:
    """Set values in the section at the dotted `key` of `folder`'s params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    node = params
    for part in key.split("."):
        node = node[part]
    node.update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def summary(folder: Path) -> dict[str, object]:
    """The summary of the record in `folder`."""
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))["summary"]
