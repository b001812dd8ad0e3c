"""What the contrastive methods share. s = exp(logit_scale); I (B, D), T (B, D) and N (B, K, D) are L2-normalised.

Everything here is float32: in fp16 or bf16 a logit near 100 moves in steps of 0.06 to 0.5, coarse against a margin.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1e9  # logit of a column that must not count; finite, so that its gradient is 0 and not NaN


def itc(
    image: Tensor, text: Tensor, scale: Tensor, negatives: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Image-text contrastive loss, with hard-negative captions as further columns of the image's softmax.

    L = (CE(s I [T; N]^T, arange B) + CE(s T I^T, arange B)) / 2  [CE-CLIP, src/open_clip/loss.py]. Negatives own no
    image, so they have no row in the text-to-image half. Without negatives this is CLIP's loss (Radford et al. 2021).

    Args:
        image, text: (B, D). scale: scalar s.
        negatives: (B, K, D); those of the other samples count too, as ordinary wrong captions.
        valid: (B, K) boolean; where given, invalid negatives are taken out of the softmax.
    """
    target = torch.arange(len(image), device=image.device)
    by_text = scale * text @ image.T
    by_image = by_text.T
    if negatives is not None:
        extra = scale * image @ negatives.flatten(0, 1).T
        if valid is not None:
            extra = extra.masked_fill(~valid.flatten(), MASKED)
        by_image = torch.cat([by_image, extra], 1)
    return (F.cross_entropy(by_image, target) + F.cross_entropy(by_text, target)) / 2
