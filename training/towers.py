"""Image and text trunks with their projection heads: timm convolutional networks and BERT sentence encoders.

The CLIP towers are in openclip.py. Batch axis B, channels C, tokens L, width W, features F, embedding D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data.params import UserError
from training.config import TowerSpec

# Convolution and batch norm pairs, by the block that holds them (names of timm's efficientnet family).
FOLDS = {
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "EdgeResidual": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    "ConvBnAct": (("conv", "bn1"),),
    "EfficientNet": (("conv_stem", "bn1"), ("conv_head", "bn2")),
}


class Head(nn.Module):
    """Projection of trunk features (B, F) to the shared space (B, D): a linear map plus an optional hidden layer.

    Features are first standardised by the fixed `shift` and `scale` (F), fitted once by `fit`: levels of a trunk differ
    in scale by orders of magnitude. The hidden branch starts at zero, so a head begins as its linear part.
    """

    shift: Tensor
    scale: Tensor
    hidden: nn.Sequential | None

    def __init__(self, features: int, hidden: int, embed_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, embed_dim)
        self.hidden = None
        if hidden:
            out = nn.Linear(hidden, embed_dim, bias=False)
            nn.init.zeros_(out.weight)
            self.hidden = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), out)

    def fit(self, features: Tensor) -> None:
        """Set the standardisation from a sample of trunk features (N, F)."""
        self.shift.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0).clamp_min(1e-4))

    def forward(self, features: Tensor) -> Tensor:
        x = self.dropout((features - self.shift) * self.scale)
        return self.linear(x) if self.hidden is None else self.linear(x) + self.hidden(x)


class TimmTrunk(nn.Module):
    """A timm network as uint8 (B, 3, H, W) to float32 (B, F): chosen levels, or the last layer, pooled over the image.

    Each level gives its mean and standard deviation over the positions (colour lives in the early ones), and the level
    of `grid` also its mean over each cell. Batch norms are folded into the convolutions: their statistics stay as
    pretrained, and the folded network is several times faster on CPUs.
    """

    net: Any
    mean: Tensor
    std: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.net = fold_batch_norms(timm.create_model(spec.arch, **spec.shape).eval())
        self.net.reset_classifier(0)
        self.levels, self.grid = list(spec.levels), tuple(spec.grid)
        if self.levels:  # what lies behind the highest level pooled is never run
            self.net.prune_intermediate_layers(self.levels, prune_norm=True)
        self.net.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)
        channels = {level: self.net.feature_info[level]["num_chs"] for level in self.levels}
        cells = channels[self.grid[0]] * self.grid[1] * self.grid[2] if self.grid else 0
        self.width = 2 * sum(channels.values()) + cells if self.levels else self.net.num_features

    def extra_repr(self) -> str:
        constants = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return f"levels={self.levels}, grid={self.grid}, constants={constants}"

    def load_unfolded(self, state: dict[str, Tensor]) -> None:
        """Take pretrained tensors under timm's names, batch norms included. Raises `UserError` if they do not fit."""
        net = timm.create_model(self.spec.arch, **self.spec.shape).eval()
        try:
            net.load_state_dict(state, strict=True)
        except RuntimeError as error:
            words = " ".join(str(error).split())[:300]
            raise UserError(f"base.image.weights: not weights of {self.spec.arch} ({words}).") from None
        self.net.load_state_dict(
            {k: v for k, v in fold_batch_norms(net).state_dict().items() if k in self.net.state_dict()}
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self._pool(self._maps(pixels))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Patch features (B, P, W), row by row: the highest level that is pooled, or the last layer."""
        return self.with_tokens(pixels, ())[1]

    def with_tokens(self, pixels: Tensor, levels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (B, F) and patch features (B, P, W) of one pass.

        `levels`, of those that are pooled, are brought to the grid of the highest of them and put side by side: W is
        the sum of their channels. Colour lives in the low ones, kinds of things in the high. None for that of `tokens`.
        """
        maps = self._maps(pixels)
        chosen = [maps[self.levels.index(level)] for level in sorted(levels)] or maps[-1:]
        rows, columns = chosen[-1].shape[2:]
        return self._pool(maps), torch.cat([_resampled(level, rows, columns) for level in chosen], 1).flatten(2).mT

    def token_width(self, levels: Sequence[int]) -> int:
        """W of `with_tokens`. Raises `UserError` for a level that is not pooled, and so not computed."""
        if unknown := set(levels) - set(self.levels):
            raise UserError(f"patch_levels: {unknown.pop()} is not one of the image tower's levels {self.levels}.")
        if not self.levels:
            return self.net.num_features
        return sum(self.net.feature_info[level]["num_chs"] for level in levels or self.levels[-1:])

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w) of `levels`, or of the last layer."""
        x = ((pixels.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if not self.levels:
            return [self.net.forward_features(x)]
        return self.net.forward_intermediates(x, indices=self.levels, intermediates_only=True)

    def _pool(self, maps: list[Tensor]) -> Tensor:
        if not self.levels:
            return maps[0].mean((2, 3))
        pooled = []
        for level in maps:
            centre = level.mean((2, 3))
            spread = (level - centre[:, :, None, None]).square().mean((2, 3))
            pooled += [centre, spread.add(1e-6).sqrt()]  # finite gradient where a channel is constant
        if self.grid:
            chosen, rows, columns = self.grid
            level = maps[self.levels.index(chosen)]
            cells = F.avg_pool2d(level, (level.shape[2] // rows, level.shape[3] // columns))
            pooled.append(cells.flatten(1))
        return torch.cat(pooled, 1)


def _resampled(level: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, h, w) averaged over the cells of a grid: (B, C, rows, columns). A cell may cut through a position."""
    down, across = (_overlaps(n, to).to(level) for n, to in zip(level.shape[2:], (rows, columns), strict=True))
    return down @ level @ across.T


def _overlaps(size: int, cells: int) -> Tensor:
    """Share (cells, size) of each of `size` positions in each of `cells` equal cells; every row sums to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * size / cells
    position = torch.arange(size, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], position + 1) - torch.maximum(edges[:-1, None], position)
    return covered.clamp_min(0) * cells / size


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """Fold every batch norm of a timm efficientnet into its convolution, in place; equal outputs in eval mode."""
    for module in net.modules():
        for conv, norm in FOLDS.get(type(module).__name__, ()):
            found = getattr(module, norm)
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), found))
            setattr(module, norm, found.act)
    net.requires_grad_()  # torch's folded biases come without
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError(
            f"{type(net).__name__} has batch norms this code cannot fold; use an efficientnet architecture."
        )
    return net


class BertLayer(nn.Module):
    """One post-norm transformer layer (Devlin et al. 2018) with fused query, key and value."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B, L, W), bias (B, 1, 1, L): 0 for tokens, a large negative number for padding."""
        return self.feed(self.attend(x, bias)[0])

    def attend(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Self-attention with residual and norm (B, L, W), and its probabilities (B, heads, L, L)."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: at caption lengths torch's fused kernel is up to 8 times slower in the bf16 backward on CPUs.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        probabilities = scores.softmax(-1)
        mixed = probabilities.to(v.dtype) @ v
        return self.norm1(x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))), probabilities

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward half with residual and norm (B, L, W)."""
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class BertTrunk(nn.Module):
    """BERT as a text tower: ids, mask int64 (B, L) to (B, W). No dropout: encoding is a function.

    `spec.shape["pool"]` says what stands for a text: the mean over its tokens (sentence encoders, the default) or the
    first token, `cls`.
    """

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        s = spec.shape
        self.width = s["hidden_size"]
        self.eps = s["layer_norm_eps"]
        self.pooling = s.get("pool", "mean")
        self.words = nn.Embedding(s["vocab_size"], self.width)
        self.positions = nn.Embedding(s["max_position_embeddings"], self.width)
        self.norm = nn.LayerNorm(self.width, eps=self.eps)
        self.layers = nn.ModuleList(
            BertLayer(self.width, s["num_attention_heads"], s["intermediate_size"], self.eps)
            for _ in range(s["num_hidden_layers"])
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encode(self.look_up(ids), mask)

    def encode(self, words: Tensor, mask: Tensor) -> Tensor:
        """(B, W) of word embeddings (B, L, W), some of which may be pseudo words."""
        return self.pool(self.contextual(words, mask), mask)

    def look_up(self, ids: Tensor) -> Tensor:
        """Word embeddings (B, L, W), which a pseudo word may replace."""
        return self.words(ids)

    def embed(self, words: Tensor) -> Tensor:
        """What enters the first layer: words plus positions, normed. (B, L, W) for any sequence of width W."""
        return self.norm(words + self.positions.weight[: words.shape[1]])

    def contextual(self, words: Tensor, mask: Tensor) -> Tensor:
        """Token features (B, L, W) after the last layer; those of padding mean nothing."""
        x, bias = self.embed(words), padding_bias(mask, words.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The text's feature (B, W)."""
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = mask[:, :, None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, L) mask of tokens as an attention bias (B, 1, 1, L): 0 for tokens, a large negative number for padding."""
    return (1.0 - mask[:, None, None, :].to(dtype)) * -1e9
