"""The plain pass of a stack of fused layers: features of every word, where heads for a class want [CLS] alone."""

from __future__ import annotations

from torch import Tensor

from training.fused.heads.stack import Stack
from training.task import Tokens
from training.towers import BertTrunk, padding_bias


def read(stack: Stack, text: BertTrunk, tokens: Tokens, v: Tensor) -> Tensor:
    """Fused features (B, L, W) of texts, each with the token features v (B, N + 1, S) of its picture."""
    x, bias = text.embed(text.look_up(tokens.ids)), padding_bias(tokens.mask, v.dtype)
    projected, first = stack.project([v]), silent(stack, text)
    for number, layer in enumerate([*text.layers, *stack.layers]):
        x = layer.attend(x, bias)[0]  # type: ignore[operator]
        if number >= first:
            x = stack.crosses[number - first].attend(x, projected[number - first])[0]
        x = layer.feed(x)  # type: ignore[operator]
    return x


def silent(stack: Stack, text: BertTrunk) -> int:
    """How many of the first layers read no picture."""
    return len(text.layers) + len(stack.layers) - len(stack.crosses)
