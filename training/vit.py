"""A vision transformer as an image trunk that hands out its patch tokens, with places where patches can be masked.

Dosovitskiy et al. 2021, arXiv 2010.11929, with timm's parameter names, so that DeiT's weights load as they are, and
layer scale (Touvron et al. 2021) for DINOv2's. Batch axis B, N patches (rows by columns, row by row), width W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import TowerSpec


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values in one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: with 25 to 50 tokens a step takes half the time of torch's fused kernel in bf16 on CPUs.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """The two-layer network of a block."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """One learned factor per channel of a block's branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """One pre-norm layer. No dropout and no stochastic depth: encoding is a function."""

    def __init__(self, width: int, heads: int, inner: int, eps: float, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, inner)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    """Cuts pictures into patches and projects each: (B, 3, H, W) to (B, N, W). One product, no convolution."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)  # holds the weights under timm's name

    def forward(self, pictures: Tensor) -> Tensor:
        side = self.proj.kernel_size[0]
        cut = F.unfold(pictures, side, stride=side).transpose(1, 2)
        return F.linear(cut, self.proj.weight.flatten(1), self.proj.bias)


class VitTrunk(nn.Module):
    """uint8 pixels (B, 3, H, W) to the final [CLS] feature (B, W), or to all N + 1 token features, [CLS] first.

    `spec.shape`: width, layers, heads, inner (of the MLP), patch (pixels), grid (rows, columns), eps, layer_scale.
    The picture must be grid times patch pixels. `mask_token`, zero at first, stands for a masked patch (BEiT).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        s = spec.shape
        self.width: int = s["width"]
        self.grid: tuple[int, int] = (s["grid"][0], s["grid"][1])
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)
        self.patch_embed = Patches(s["patch"], self.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, self.width))
        self.mask_token = nn.Parameter(torch.zeros(self.width))
        self.blocks = nn.ModuleList(
            Block(self.width, s["heads"], s["inner"], s["eps"], s["layer_scale"]) for _ in range(s["layers"])
        )
        self.norm = nn.LayerNorm(self.width, eps=s["eps"])
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tokens(pixels)[:, 0]

    def tokens(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token features (B, N + 1, W), with the patches of `mask` (B, N) hidden."""
        return self.run(self.embed(pixels, mask))

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """What enters the first block (B, N + 1, W). Where `mask` (B, N) bool is set, `mask_token` takes the place of
        the patch, before positions are added: a masked patch keeps its place and nothing else."""
        patches = self.patch_embed((pixels.float() - self.mean) / self.std)
        if mask is not None:
            patches = torch.where(mask[:, :, None], self.mask_token.to(patches.dtype), patches)
        first = self.cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype)  # len() would fix it in an export
        return torch.cat([first, patches], 1) + self.pos_embed

    def lower(self, x: Tensor, count: int) -> Tensor:
        """The first `count` blocks, without the final norm: what `run` goes on from with `first=count`."""
        for block in self.blocks[:count]:
            x = block(x)
        return x

    def fixed(self) -> int | None:
        """How many of the first blocks are frozen together with the embedding; None where the embedding learns."""
        embedding = (*self.patch_embed.parameters(), self.cls_token, self.pos_embed, self.mask_token)
        if any(parameter.requires_grad for parameter in embedding):
            return None
        learning = [any(p.requires_grad for p in block.parameters()) for block in self.blocks]
        return learning.index(True) if True in learning else len(learning)

    def run(self, x: Tensor, first: int = 0) -> Tensor:
        """The blocks from `first` on and the final norm."""
        for block in self.blocks[first:]:
            x = block(x)
        return self.norm(x)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], antialias: bool = True) -> Tensor:
    """Position embeddings (1, 1 + N, W) of an `old` grid for a `new` one; that of [CLS] stays (bicubic, as DeiT)."""
    if old == new:
        return positions
    first, grid = positions[:, :1], positions[:, 1:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=new, mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat([first, grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(first.dtype)], 1)
