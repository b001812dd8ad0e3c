"""CLIP's two towers on own layers: any text length, uint8 pixels in, weights of open_clip in and out.

Batch axis B, tokens L, patches P, width W, embedding D.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.params import UserError
from training.clip_blocks import ClipLayer, renamed
from training.config import TowerSpec

MEAN = tuple(255 * v for v in (0.48145466, 0.4578275, 0.40821073))  # open_clip.constants.OPENAI_DATASET_MEAN
STD = tuple(255 * v for v in (0.26862954, 0.26130258, 0.27577711))
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # open_clip.tokenizer.SimpleTokenizer.pat
# Sizes that a tower of ours can have, with open_clip's defaults [open_clip.model.CLIPVisionCfg, CLIPTextCfg].
IMAGE_SIZES = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT_SIZES = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
}  # fmt: skip
NEUTRAL = {"pos_embed_type": "learnable", "proj_type": "linear", "block_type": "default"}  # other words for our towers
UNREAD = ("pad_id", "eos_id", "hf_tokenizer_name", "tokenizer_kwargs", "output_tokens")  # decide nothing in them
IMAGE_NAMES = {
    "conv1": "patches", "class_embedding": "first", "positional_embedding": "positions", "ln_pre": "norm",
    "ln_post": "last", "proj": "projection",
}  # fmt: skip
TEXT_NAMES = {
    "token_embedding": "words", "positional_embedding": "positions", "ln_final": "last",
    "text_projection": "projection",
}  # fmt: skip


class ClipImageTrunk(nn.Module):
    """CLIP's vision transformer as uint8 (B, 3, H, W) to (B, D), projection included.

    (pixel - mean) / std is folded into the patch embedding, so no float picture is ever made.
    """

    mean: Tensor
    std: Tensor
    layers: Any  # of ClipLayer

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        sizes = _sizes(spec.arch, spec.shape["vision_cfg"], IMAGE_SIZES, {**NEUTRAL, "pool_type": "tok"})
        width, self.patch = sizes["width"], _pair(sizes["patch_size"])
        height, across = _pair(sizes["image_size"])
        self.width = spec.shape["embed_dim"]
        scale = width**-0.5
        self.patches = nn.Conv2d(3, width, self.patch, self.patch, bias=False)  # holds the weight; see `embed`
        self.first = nn.Parameter(scale * torch.randn(width))
        count = (height // self.patch[0]) * (across // self.patch[1])
        self.positions = nn.Parameter(scale * torch.randn(count + 1, width))
        self.norm = nn.LayerNorm(width)
        self.layers = _layers(sizes, width // sizes["head_width"], spec.shape["quick_gelu"])
        self.last = nn.LayerNorm(width)
        self.projection = nn.Parameter(scale * torch.randn(width, self.width))
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(pixels)
        for layer in self.layers[:-1]:
            x = layer(x, None)
        start = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return self.last(self.layers[-1].only(x, start, None)).squeeze(1) @ self.projection

    def tokens(self, pixels: Tensor) -> Tensor:
        """Projected features (B, 1 + P, D) of [CLS] and of the patches, row by row."""
        x = self.embed(pixels)
        for layer in self.layers:
            x = layer(x, None)
        return self.last(x) @ self.projection

    def embed(self, pixels: Tensor) -> Tensor:
        """What enters the first layer (B, 1 + P, W).

        W (x - mean) / std = (W / std) x - Σ (W / std) mean; the second term joins the positions.
        """
        weight = self.patches.weight / self.std
        offset = (weight * self.mean).sum((1, 2, 3))
        batch, channels, height, across = pixels.shape
        rows, columns = self.patch
        cut = pixels.view(batch, channels, height // rows, rows, across // columns, columns).permute(0, 2, 4, 1, 3, 5)
        flat = cut.reshape(batch, -1, channels * rows * columns).to(weight.dtype)
        patches = F.linear(flat, weight.flatten(1)) + (self.positions[1:] - offset)
        first = (self.first + self.positions[0]).expand(batch, 1, -1)
        return self.norm(torch.cat([first, patches], 1))

    def load_open_clip(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of open_clip's `VisionTransformer`."""
        self.load_state_dict(renamed(state, IMAGE_NAMES), strict=True)

    def open_clip_state(self) -> dict[str, Tensor]:
        """These weights under the names of open_clip's `VisionTransformer`."""
        return renamed(self.state_dict(), IMAGE_NAMES, back=True)


class ClipTextTrunk(nn.Module):
    """CLIP's causal text transformer as ids, mask (B, L) to (B, D), projection included, for any L up to its context.

    The feature is read at the end-of-text token, the last one of the mask, and no token sees what comes behind it. So
    padding needs no masking, and cutting it off is exact; open_clip itself refuses texts shorter than its context.
    """

    layers: Any  # of ClipLayer

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        sizes = _sizes(spec.arch, spec.shape["text_cfg"], TEXT_SIZES, {**NEUTRAL, "pool_type": "argmax"})
        width = sizes["width"]
        self.width = spec.shape["embed_dim"]
        self.words = nn.Embedding(sizes["vocab_size"], width)
        self.positions = nn.Parameter(0.01 * torch.randn(sizes["context_length"], width))
        self.layers = _layers(sizes, sizes["heads"], spec.shape["quick_gelu"])
        self.last = nn.LayerNorm(width)
        self.projection = nn.Parameter(width**-0.5 * torch.randn(width, self.width))
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encode(self.look_up(ids), mask)

    def look_up(self, ids: Tensor) -> Tensor:
        """Word embeddings (B, L, W), which a pseudo word may replace."""
        return self.words(ids)

    def encode(self, words: Tensor, mask: Tensor) -> Tensor:
        """Features (B, D) of word embeddings (B, L, W): `pool` of `contextual`, the last layer at one token only."""
        x = self._below_last(words)
        end = _end(mask)
        unseen = torch.arange(x.shape[1], device=x.device) > end[:, None]
        bias = torch.zeros(unseen.shape, device=x.device).masked_fill(unseen, -torch.inf)
        return self.last(self.layers[-1].only(x, end, bias[:, None, None])).squeeze(1) @ self.projection

    def contextual(self, words: Tensor, mask: Tensor) -> Tensor:
        """Token features (B, L, W) after the last layer and its norm; those of padding mean nothing."""
        x = self._below_last(words)
        return self.last(self.layers[-1](x, causal_bias(x)))

    def project(self, tokens: Tensor) -> Tensor:
        """Token features (..., W) in the shared space, (..., D)."""
        return tokens @ self.projection

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The text's projected feature (B, D), that of its end-of-text token."""
        return self.project(tokens.gather(1, _end(mask)[:, None, None].expand(-1, 1, tokens.shape[2])).squeeze(1))

    def load_open_clip(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of open_clip's `TextTransformer`."""
        self.load_state_dict(renamed(state, TEXT_NAMES), strict=True)

    def open_clip_state(self) -> dict[str, Tensor]:
        """These weights under the names of open_clip's `TextTransformer`."""
        return renamed(self.state_dict(), TEXT_NAMES, back=True)

    def _below_last(self, words: Tensor) -> Tensor:
        x = words + self.positions[: words.shape[1]]
        bias = causal_bias(x)
        for layer in self.layers[:-1]:
            x = layer(x, bias)
        return x


def causal_bias(x: Tensor) -> Tensor:
    """Attention bias (L, L) under which a token of x (B, L, W) sees itself and those before it."""
    return torch.full((x.shape[1], x.shape[1]), -torch.inf, device=x.device).triu(1)


def _end(mask: Tensor) -> Tensor:
    """Position of the last token (B,)."""
    return mask.sum(1) - 1


def _layers(sizes: Mapping[str, Any], heads: int, quick_gelu: bool) -> nn.ModuleList:
    """The stack of layers, started as open_clip starts a text tower's."""
    width, count = sizes["width"], sizes["layers"]
    made = nn.ModuleList(ClipLayer(width, heads, int(width * sizes["mlp_ratio"]), quick_gelu) for _ in range(count))
    spread = {"qkv": width**-0.5, "out": (2 * width * count) ** -0.5, "up": (2 * width) ** -0.5}
    spread["down"] = spread["out"]
    for layer in made:
        for name, std in spread.items():
            part = getattr(layer, name)
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
    return made


def _sizes(arch: str, given: Mapping[str, Any], known: dict[str, Any], neutral: Mapping[str, str]) -> dict[str, Any]:
    """`known` with the values `given`. Raises `UserError` where they ask for another architecture."""
    for key, value in given.items():
        if value and key not in known and key not in UNREAD and neutral.get(key) != value:
            raise _unsupported(arch, key, value)
    sizes = {**known, **{key: given[key] for key in known if key in given}}
    if isinstance(sizes["layers"], (list, tuple)):
        raise _unsupported(arch, "layers", sizes["layers"])
    return sizes


def _unsupported(arch: str, key: str, value: object) -> UserError:
    return UserError(
        f"{arch}: its {key} is {value}, and only CLIP models of a plain vision transformer and a causal text "
        "transformer read at the end-of-text token are supported; choose one such as ViT-B-32-quickgelu."
    )


def _pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns)."""
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return rows, columns


def quick_gelu_active(module: nn.Module) -> bool:
    """Whether the transformer blocks below `module` use QuickGELU. Raises `UserError` if blocks disagree."""
    from open_clip.transformer import QuickGELU

    found = {isinstance(m, QuickGELU) for m in module.modules() if isinstance(m, (QuickGELU, nn.GELU))}
    if len(found) != 1:
        raise UserError("The CLIP model mixes QuickGELU and GELU, or has neither; it cannot be an OpenAI-style CLIP.")
    return found.pop()


def pretrained(model: str, weights: str) -> tuple[TowerSpec, TowerSpec, dict[str, Tensor], float]:
    """Load a CLIP model: (image spec, text spec, state of its towers, logit scale).

    Args:
        model: an open_clip model name (`ViT-B-32-quickgelu`), or `hf-hub:owner/name`.
        weights: an open_clip tag (`openai`), a local file, or empty for `hf-hub:` models, which name their own.
    """
    import open_clip

    try:
        config = _model_config(model)
        clip = open_clip.create_model(model, pretrained=weights or None, force_custom_text=True, weights_only=True)
    except Exception as error:  # open_clip raises RuntimeError, OSError, hub errors and unpickling errors alike
        words = " ".join(str(error).split())
        raise UserError(f"base.clip: cannot load {model} with weights `{weights}`: {words}") from None
    active = quick_gelu_active(clip)
    if weights == "openai" and not active:
        raise UserError(f"base.clip: the OpenAI weights were trained with QuickGELU; use `{model}-quickgelu`.")
    common = {"embed_dim": config["embed_dim"], "quick_gelu": active}
    image = {**common, "vision_cfg": config["vision_cfg"]}
    text = {**common, "text_cfg": config["text_cfg"]}
    return (
        TowerSpec(kind="open_clip", arch=model, shape=image, mean=MEAN, std=STD),
        TowerSpec(kind="open_clip", arch=model, shape=text),
        clip.state_dict(),
        clip.logit_scale.item(),
    )


def _model_config(model: str) -> dict[str, Any]:
    import open_clip

    if model.startswith("hf-hub:"):
        return open_clip.factory._get_hf_config(model.removeprefix("hf-hub:"))["model_cfg"]
    config = open_clip.get_model_config(model)
    if config is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=1)
        raise UserError(f"no open_clip model of that name{f'; did you mean {near[0]}?' if near else '.'}")
    return config


def tokenizer() -> Any:
    """CLIP's byte-pair tokenizer as a `tokenizers.Tokenizer`, from the vocabulary that ships with open_clip.

    Unlike open_clip's it does not guess at broken Unicode or HTML (ftfy, html.unescape); landing cleans texts.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    source = SimpleTokenizer()
    vocabulary = dict(source.encoder)
    model = models.BPE(vocabulary, list(source.bpe_ranks), end_of_word_suffix="</w>", fuse_unk=False)
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    start, end = "<start_of_text>", "<end_of_text>"
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    return made
