"""Transformer layers that read another modality, and masked image modelling on top of them.

Sequence x (B, L, W), the other modality's (B, M, S); N patches, of which K per picture are masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from training.fusion import Fusion, initialise
from training.towers import BertLayer, padding_bias

MimTarget = Literal["feature", "pixel", "dvae"]


class Multimodal(nn.Module):
    """Layers of self-attention, cross-attention and feed-forward. `layers` may come pretrained; crosses start anew."""

    def __init__(self, layers: Sequence[BertLayer], source_width: int, eps: float) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)
        self.fusion = Fusion(len(layers), layers[0].out.in_features, layers[0].heads, source_width, eps)

    def project(self, source: Tensor) -> list[Tensor]:
        """Every layer's keys and values of the other modality (B, M, S); rows can be gathered and reused."""
        return self.fusion.project(source)

    def forward(
        self, x: Tensor, bias: Tensor | float, projected: Sequence[Tensor], source_bias: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Features (B, L, W), and of every layer the cross-attention logits (B, heads, L, M) before any bias."""
        found = []
        crosses: Any = self.fusion.crosses
        for layer, cross, pair in zip(self.layers, crosses, projected, strict=True):
            x, logits = cross.attend(layer.attend(x, bias)[0], pair, source_bias)
            x = layer.feed(x)
            found.append(logits)
        return x, found


class MimDecoder(nn.Module):
    """Image tokens that read the unmasked text, and a linear head at the masked patches.

    Without it masked image modelling would never see the text: in the fused layers only text asks.
    """

    def __init__(self, layers: Sequence[BertLayer], text_width: int, eps: float, outputs: int) -> None:
        super().__init__()
        self.blocks = Multimodal(layers, text_width, eps)
        self.out = nn.Linear(layers[0].out.in_features, outputs)
        self.apply(initialise)

    def forward(self, tokens: Tensor, words: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
        """Image tokens (B, N + 1, W), text features (B, L, S) with mask, chosen (B, N) with K each: (B K, outputs)."""
        found, _ = self.blocks(tokens, 0.0, self.blocks.project(words), padding_bias(mask, words.dtype))
        return self.out(found[:, 1:][chosen])


def mim_outputs(kind: MimTarget, width: int, patch: int, codes: int) -> int:
    """How many numbers describe the target of one patch."""
    return {"feature": width, "pixel": 3 * patch * patch, "dvae": codes}[kind]


def normalised_features(patches: Tensor) -> Tensor:
    """Teacher features (B, N, W) as targets: each patch's with mean 0 and deviation 1."""
    return F.layer_norm(patches.float(), patches.shape[-1:])


def normalised_pixels(pixels: Tensor, patch: int) -> Tensor:
    """uint8 (B, 3, H, W) to (B, N, 3 patch²), each patch with mean 0 and deviation 1 (MAE, arXiv 2111.06377)."""
    cut = F.unfold(pixels.float(), patch, stride=patch).transpose(1, 2)
    return (cut - cut.mean(-1, keepdim=True)) / (cut.var(-1, keepdim=True) + 1e-6).sqrt()


def mim_loss(kind: MimTarget, predicted: Tensor, target: Tensor) -> Tensor:
    """(M,) loss of M masked patches: smooth L1 with β = 1, squared error, or cross-entropy of codes (M,) int64."""
    if kind == "dvae":
        return F.cross_entropy(predicted.float(), target, reduction="none")
    error = F.smooth_l1_loss if kind == "feature" else F.mse_loss
    return error(predicted.float(), target, reduction="none").mean(-1)
