"""No goal, a choice: attention written out against torch's fused kernel, forward and backward, as ViT-B/32 needs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from perf.bench import Row, paired, speed_row
from training.clip_blocks import attention

CASES = ((64, 8, 16, True), (64, 8, 77, True), (16, 12, 50, False))  # batch, heads, tokens, causal


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=bias is not None)
    return mixed.transpose(1, 2).flatten(2)


def step(function: Callable[..., Tensor], qkv: Tensor, bias: Tensor | None) -> Callable[[], None]:
    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=qkv.dtype == torch.bfloat16):
            made = function(*qkv.permute(2, 0, 3, 1, 4).unbind(0), bias)
        made.backward(torch.ones_like(made))
        qkv.grad = None

    return run


def run(smoke: bool) -> list[Row]:
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for batch, heads, length, causal in CASES:
            qkv = torch.randn(batch, length, 3, heads, 64, dtype=dtype, requires_grad=True)
            bias = torch.full((length, length), -torch.inf).triu(1) if causal else None
            pairs = paired(step(attention, qkv, bias), step(fused, qkv, bias), 5 if smoke else 15)
            rows.append(speed_row(
                pairs, 1, id="", what=f"attention {str(dtype)[6:]}, {batch} x {length} tokens",
                peer="scaled_dot_product_attention", unit="passes/s",
            ))  # fmt: skip
    return rows
