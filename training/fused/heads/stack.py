"""A trained fused model as one stack of text layers, some of which read a picture, or two pictures in turn.

SIMLA's and SyncMask's layers in one form, so that a head needs to know neither method. Two pictures as in ALBEF
(Li et al. 2021, arXiv 2107.07651, §4) and SIMLA's code: each upper layer becomes a pair that shares the keys' and
values' weights; its first half reads the left picture and its second the right one. With 12 layers: 6 and 6 pairs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data.params import UserError
from training.config import EncoderConfig
from training.encoder import DualEncoder
from training.fused.fusion import CrossAttention, Fusion, attend_at
from training.fused.multimodal import Multimodal, in_buckets
from training.task import Task, Tokens
from training.towers import BertLayer, BertTrunk, padding_bias
from training.vit import resize_positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a stack looks like above the layers of the text tower, of which there are as many as the encoder says.

    Attributes:
        reads: whether the text tower's own layers read the pictures too (SIMLA) or the text alone (SyncMask).
        upper: layers above them, all of which read.
        pictures: 1, or 2 that are read in turn; the upper layers are then pairs.
    """

    reads: bool
    upper: int
    pictures: Literal[1, 2] = 1


class Stack(nn.Module):
    """The layers above a text tower, and the cross-attentions of all that have one."""

    def __init__(self, shape: Shape, encoder: EncoderConfig) -> None:
        super().__init__()
        s, image = encoder.text.shape, encoder.image.shape
        width, heads, eps = s["hidden_size"], s["num_attention_heads"], s["layer_norm_eps"]
        self.shape = shape
        self.lower = s["num_hidden_layers"] if shape.reads else 0
        self.layers = nn.ModuleList(BertLayer(width, heads, s["intermediate_size"], eps) for _ in range(shape.upper))
        self.crosses: Any = nn.ModuleList(
            CrossAttention(width, heads, image["width"], eps) for _ in range(self.lower + shape.upper)
        )
        for number, (_, owner) in enumerate(self.readings()):
            if owner != number:
                self.crosses[number].register_module("key_value", None)

    def readings(self) -> list[tuple[int, int]]:
        """Of each cross-attention the picture that it reads, and the one whose keys and values it takes."""
        if self.shape.pictures == 1:
            return [(0, i) for i in range(self.lower + self.shape.upper)]
        below = [(i % 2, i) for i in range(self.lower)]
        return below + [(k % 2, self.lower + k - k % 2) for k in range(self.shape.upper)]

    def project(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Keys and values of every cross-attention, of the picture (B, N + 1, S) that it reads."""
        return [self.crosses[owner].project(pictures[picture]) for picture, owner in self.readings()]

    def forward(self, text: BertTrunk, tokens: Tokens, pictures: Sequence[Tensor]) -> Tensor:
        """The fused [CLS] (B, W) of texts with the token features (B, N + 1, S) of their picture or pictures."""
        words, projected = text.look_up(tokens.ids), self.project(pictures)
        layers = [*text.layers, *self.layers]
        silent = len(layers) - len(self.crosses)

        def run(rows: Tensor, width: int) -> Tensor:
            mask = tokens.mask[rows, :width]
            x = text.embed(words[:, :width].index_select(0, rows))
            bias, first = padding_bias(mask, x.dtype), rows.new_zeros(len(rows), 1)
            for number, layer in enumerate(layers):
                last = number == len(layers) - 1
                x = attend_at(layer, x, bias, first)[0] if last else layer.attend(x, bias)[0]  # type: ignore[operator]
                if number >= silent:
                    pair = projected[number - silent].index_select(0, rows)
                    x = self.crosses[number - silent].attend(x, pair)[0]
                x = layer.feed(x)  # type: ignore[operator]
            return x

        return in_buckets(tokens.mask, run)[:, 0]


def stack_of(method: Task, pictures: Literal[1, 2]) -> tuple[DualEncoder, Stack]:
    """Encoder and stack of a trained fused method, with copies of its weights.

    Raises `UserError` if it is none, or has too few layers to be paired.
    """
    fusion: Any = getattr(method, "fusion", None)
    single, known = isinstance(fusion, Fusion), isinstance(fusion, Fusion | Multimodal)
    if not known:
        name = type(method).__module__.rpartition(".")[2]
        raise UserError(f"{name}: has no fused layers, so it takes no head. Fine-tune simla or syncmask.")
    encoder = copy.deepcopy(method.encoder)
    own: list[Any] = list(encoder.text.trunk.layers)
    above, crosses = ([], fusion.crosses) if single else (list(fusion.layers), fusion.fusion.crosses)
    keep = len(own) // 2 if single and pictures == 2 else len(own)
    upper = [*own[keep:], *above]
    if pictures == 2 and not upper:
        raise UserError("methods: a stack for two pictures needs at least one layer that reads them.")
    keep_layers(encoder, keep)
    shape = Shape(reads=single, upper=pictures * len(upper), pictures=pictures)
    stack = Stack(shape, encoder.config)
    with torch.no_grad():
        for made, layer in zip(stack.layers, _repeated(upper, pictures), strict=True):
            made.load_state_dict(layer.state_dict())
        readers = [*crosses[: stack.lower], *_repeated(list(crosses[len(crosses) - len(upper) :]), pictures)]
        for made, cross in zip(stack.crosses, readers, strict=True):
            state = cross.state_dict()
            made.load_state_dict({key: state[key] for key in made.state_dict()})
    return encoder, stack


def keep_layers(encoder: DualEncoder, count: int) -> None:
    """Cut the text tower to its first layers."""
    encoder.text.trunk.layers = nn.ModuleList(list(encoder.text.trunk.layers)[:count])
    text = dataclasses.replace(
        encoder.config.text, shape={**encoder.config.text.shape, "num_hidden_layers": count}
    )  # fmt: skip
    encoder.config = dataclasses.replace(encoder.config, text=text)


def regrid(encoder: DualEncoder, grid: tuple[int, int], max_tokens: int) -> None:
    """Let the encoder see pictures of another size, `grid` patches, and longer texts: position codes are resized."""
    trunk, spec = encoder.image.trunk, encoder.config.image
    patch = spec.shape["patch"]
    trunk.pos_embed = nn.Parameter(resize_positions(trunk.pos_embed.detach(), trunk.grid, grid))
    trunk.grid = grid
    image = dataclasses.replace(spec, shape={**spec.shape, "grid": list(grid)})
    encoder.config = dataclasses.replace(
        encoder.config, image=image, image_size=(grid[0] * patch, grid[1] * patch), max_tokens=max_tokens
    )  # fmt: skip
    encoder.tokenizer.enable_truncation(max_tokens)


def _repeated(items: list[Any], times: int) -> list[Any]:
    """Each item `times` times, side by side."""
    return [item for item in items for _ in range(times)]
