"""Where in a picture a text is meant: Grad-CAM on the cross-attention of a fused method (Selvaraju et al. 2017,
arXiv 1610.02391), as ALBEF (arXiv 2107.07651) and SIMLA (arXiv 2203.14395 §3.5) have it.

    A (B, h, L, N + 1)   attention of L words to [CLS] and N patches in one layer, h heads;  m (B, L) 1 for words, 0 for
                         padding;  s (B,) the logit of "they match" of the image-text matching head
    map = mean over heads and words of m A max(∂s/∂A, 0), the column of [CLS] left out
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from data.params import UserError
from training.fused.heads.stack import stack_of
from training.fused.reading import read, silent
from training.task import Task, Tokens

LAYER, OF = 8, 12  # ALBEF and SIMLA read layer 8 of 12, counted from 0
BATCH = 32  # pairs per pass


class Grounder:
    """A trained fused method that points at what a text names.

    Args:
        layer: whose cross-attention is read, of all the BERT's layers counted from 0; none for the one as far up as
            ALBEF's, or the first above it that reads pictures.
    """

    def __init__(self, method: Task, layer: int | None = None) -> None:
        self.encoder, self.stack = stack_of(method, 1)
        self.stack.to(self.encoder.logit_scale.device)
        self.itm: Any = method.itm
        text = self.encoder.text.trunk
        first, count = silent(self.stack, text), len(text.layers) + len(self.stack.layers)
        self.layer = max(first, LAYER * count // OF) if layer is None else layer
        if not first <= self.layer < count:
            raise UserError(f"grounding: layer {self.layer} reads no picture; choose one of {first} to {count - 1}.")
        self.cross: nn.Module = self.stack.crosses[self.layer - first]

    def maps(self, pixels: Iterable[npt.NDArray[np.uint8]], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Maps (N, rows, columns) on the grid of patches, of pictures (H, W, 3) with a text each. Nothing is below 0;
        the scale of one map says nothing about another's."""
        rows, columns = self.encoder.image.trunk.grid
        device, made = self.encoder.logit_scale.device, [np.zeros((0, rows, columns), np.float32)]
        stream = iter(pixels)
        for start in range(0, len(texts), BATCH):
            some = texts[start : start + BATCH]
            pictures = torch.from_numpy(np.stack([*islice(stream, len(some))])).permute(0, 3, 1, 2)
            found = self.point(pictures.to(device), Tokens(*self.encoder.tokenize(some)).to(device))
            made.append(found.view(-1, rows, columns).cpu().numpy())
        return np.concatenate(made)

    def point(self, pixels: Tensor, tokens: Tokens) -> Tensor:
        """Maps (B, N) of pixels uint8 (B, 3, H, W) and texts."""
        with torch.no_grad():
            v = self.encoder.image.trunk.tokens(pixels)
        with torch.enable_grad(), _Attention(self.cross) as seen:
            score = self.itm(read(self.stack, self.encoder.text.trunk, tokens, v)[:, 0]).float()[:, 1]
            (gradient,) = torch.autograd.grad(score.sum(), seen.attention)
        return grad_cam(seen.attention.detach(), gradient, tokens.mask)


class _Attention:
    """Within it, `attention` is what a cross-attention last looked at, cut off from what led to it."""

    attention: Tensor

    def __init__(self, cross: Any) -> None:
        self.looks: nn.Module = cross.looks

    def __enter__(self) -> _Attention:
        self.handle = self.looks.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, attention: Tensor) -> Tensor:
        self.attention = attention.detach().requires_grad_()
        return self.attention


def grad_cam(attention: Tensor, gradient: Tensor, mask: Tensor) -> Tensor:
    """The map (B, N) of A and ∂s/∂A (B, h, L, N + 1) and m (B, L)."""
    shown = (attention * gradient.clamp_min(0))[..., 1:].float().mean(1)
    return (shown * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
