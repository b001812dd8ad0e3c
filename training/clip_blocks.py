"""Pre-norm transformer layers of CLIP (Radford et al. 2021, arXiv 2103.00020), for sequences of any length.

Batch axis B, tokens L, width W, heads H. Parameters are open_clip's, renamed; `renamed` translates both ways.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

QUICK = 1.702  # x sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with
LAYER = {
    "ln_1": "norm1", "attn.in_proj_weight": "qkv.weight", "attn.in_proj_bias": "qkv.bias", "attn.out_proj": "out",
    "ln_2": "norm2", "mlp.c_fc": "up", "mlp.c_proj": "down",
}  # fmt: skip
LAYERS = ("transformer.resblocks", "layers")


class ClipLayer(nn.Module):
    """x + attention(norm(x)), then x + feed(norm(x)), with query, key and value in one matrix."""

    def __init__(self, width: int, heads: int, inner: int, quick_gelu: bool) -> None:
        super().__init__()
        self.heads, self.quick_gelu = heads, quick_gelu
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (B, L, W); `bias` is added to the logits, anything that broadcasts to (B, H, L, L)."""
        q, k, v = self._heads(self.qkv(self.norm1(x)), 3)
        return self._feed(x + self.out(attention(q, k, v, bias)))

    def only(self, x: Tensor, at: Tensor, bias: Tensor | None) -> Tensor:
        """What `forward` gives at position `at` (B,) of each sequence, (B, 1, W), without computing the others.

        `bias` broadcasts to (B, H, 1, L).
        """
        place = at[:, None, None].expand(-1, 1, x.shape[2])
        normed = self.norm1(x)
        width = x.shape[2]
        weight, offset = self.qkv.weight, self.qkv.bias
        (q,) = self._heads(F.linear(normed.gather(1, place), weight[:width], offset[:width]), 1)
        k, v = self._heads(F.linear(normed, weight[width:], offset[width:]), 2)
        return self._feed(x.gather(1, place) + self.out(attention(q, k, v, bias)))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, width = x.shape
        each = width // parts // self.heads
        return x.view(batch, length, parts, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)

    def _feed(self, x: Tensor) -> Tensor:
        y = self.up(self.norm2(x))
        return x + self.down(quick_gelu(y) if self.quick_gelu else F.gelu(y))


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention of q (B, H, M, W/H) over k, v (B, H, L, W/H), heads joined again: (B, M, W).

    Written out: at 8 to 197 tokens torch's fused kernel takes 2.5 to 9 times as long in bf16 with its backward pass on
    CPUs, and the same in float32 [`python -m perf attention`].
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def quick_gelu(x: Tensor) -> Tensor:
    """x σ(1.702 x)."""
    return F.silu(QUICK * x) / QUICK


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str], *, back: bool = False) -> dict[str, Tensor]:
    """Tensors under other names: `names` maps beginnings of open_clip's to ours, layer parts as in `LAYER`."""
    table = {**names, LAYERS[0]: LAYERS[1]}
    inner = LAYER
    if back:
        table, inner = ({ours: theirs for theirs, ours in pairs.items()} for pairs in (table, LAYER))
    return {_rename(name, table, inner): value for name, value in state.items()}


def _rename(name: str, table: Mapping[str, str], inner: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            rest = name[len(old) :]
            if old in LAYERS:
                _, index, part = rest.split(".", 2)
                rest = f".{index}.{_rename(part, inner, {})}"
            return new + rest
    return name
