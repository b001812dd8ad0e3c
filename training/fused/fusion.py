"""Cross-attention that turns BERT layers into a multimodal encoder, and the heads that read it.

Layer order as in ALBEF's BERT: self-attention, cross-attention, feed-forward, each with residual and norm. Without
the middle part a layer is an ordinary text layer. Sequence (B, L, W), the other modality's sequence (B, M, S).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fused(NamedTuple):
    """What a multimodal pass gives: tokens (B, L, W), and of the last layer the cross-attention logits (B, heads, L, M)
    before any bias, and the self-attention probabilities (B, heads, L, L). Instead of all L, K chosen places."""

    tokens: Tensor
    cross: Tensor
    probabilities: Tensor


class CrossAttention(nn.Module):
    """Attention of one sequence to another, with residual and norm."""

    def __init__(self, width: int, heads: int, source_width: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.looks = nn.Identity()  # what passes here is the attention: where a hook can read it, for grounding

    def project(self, source: Tensor) -> Tensor:
        """Keys and values (B, 2, heads, M, W / heads): made once and gathered where a source is used several times."""
        batch, length, _ = source.shape
        return self.key_value(source).view(batch, length, 2, self.heads, -1).permute(0, 2, 3, 1, 4)

    def attend(self, x: Tensor, projected: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Output (B, L, W) and logits (B, heads, L, M) before `bias` (B, 1, 1, M), 0 or large negative for padding."""
        batch, length, width = x.shape
        k, v = projected.unbind(1)
        q = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        biased = logits if bias is None else logits + bias
        mixed = self.looks(biased.softmax(-1)).to(v.dtype) @ v
        return self.norm(x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))), logits

    def forward(self, x: Tensor, source: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `attend`, from the source sequence (B, M, S) itself."""
        return self.attend(x, self.project(source), bias)


class Fusion(nn.Module):
    """The cross-attentions of a run of BERT layers; the layers themselves are lent for each pass."""

    def __init__(self, layers: int, width: int, heads: int, source_width: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(CrossAttention(width, heads, source_width, eps) for _ in range(layers))
        self.apply(initialise)

    def project(self, source: Tensor) -> list[Tensor]:
        """Keys and values of every layer for one source (B, M, S); index their first axis to reuse rows."""
        return [cross.project(source) for cross in self.crosses]  # type: ignore[operator]

    def forward(
        self, layers: Sequence[nn.Module] | nn.ModuleList, x: Tensor, bias: Tensor, projected: Sequence[Tensor],
        source_bias: Tensor | None = None, at: Tensor | None = None,
    ) -> Fused:  # fmt: skip
        """Run `layers` (`towers.BertLayer`, one per cross-attention) over x, each reading its part of `projected`.

        `at` (B, K): the places that are wanted; the last layer computes no others.
        """
        last = layers[-1]
        for layer, cross, pair in zip(layers, self.crosses, projected, strict=True):
            if at is not None and layer is last:
                x, probabilities = attend_at(layer, x, bias, at)
            else:
                x, probabilities = layer.attend(x, bias)  # type: ignore[operator]
            x, logits = cross.attend(x, pair, source_bias)  # type: ignore[operator]
            x = layer.feed(x)  # type: ignore[operator]
        return Fused(x, logits, probabilities)


def attend_at(layer: Any, x: Tensor, bias: Tensor | float, at: Tensor) -> tuple[Tensor, Tensor]:
    """`BertLayer.attend` with queries at the places `at` (B, K) only: (B, K, W) and (B, heads, K, L)."""
    batch, length, width = x.shape
    asking = x.gather(1, at[:, :, None].expand(-1, -1, width))
    weight, offset = layer.qkv.weight, layer.qkv.bias
    q = F.linear(asking, weight[:width], offset[:width]).view(batch, at.shape[1], layer.heads, -1).transpose(1, 2)
    pair = F.linear(x, weight[width:], offset[width:]).view(batch, length, 2, layer.heads, -1)
    k, v = pair.permute(2, 0, 3, 1, 4).unbind(0)
    probabilities = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias).softmax(-1)
    mixed = (probabilities.to(v.dtype) @ v).transpose(1, 2).reshape(batch, -1, width)
    return layer.norm1(asking + layer.out(mixed)), probabilities


def places(wanted: Tensor) -> Tensor:
    """The first place and those set in `wanted` (R, L), as (R, K): rows with fewer are filled up with others.

    No place stands twice in a row. The fillers are the row's first: in a row of l words, the first l entries are
    places below l.
    """
    rank = wanted.clone().byte()
    rank[:, 0] = 2
    most = int(rank.clamp_max(1).sum(1).max())
    return rank.argsort(dim=1, descending=True, stable=True)[:, :most]


def put(tokens: Tensor, at: Tensor, length: int) -> Tensor:
    """Tokens (R, K, D) at the places `at` (R, K) of (R, `length`, D), which is 0 elsewhere."""
    whole = tokens.new_zeros(len(tokens), length, tokens.shape[2])
    return whole.scatter(1, at[:, :, None].expand_as(tokens), tokens)


class MlmHead(nn.Module):
    """BERT's language-model head, for the chosen positions only; the decoder is the word embedding."""

    def __init__(self, width: int, vocabulary: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.apply(initialise)

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """Features (M, W) of M positions and word embeddings (V, W) to logits (M, V)."""
        return F.linear(self.norm(F.gelu(self.dense(tokens))), words, self.bias)


def initialise(module: nn.Module) -> None:
    """BERT's start of a layer without pretrained weights, for `Module.apply`: matrices N(0, 0.02²), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
