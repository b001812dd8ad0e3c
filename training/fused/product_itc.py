"""Contrastive losses of the fused methods: against queues with several right answers, and GRIT's within the batch.

B rows, Q queued pairs, d the shared width. f (B, d) image and t (B, d) text features of the student, f', t' of the
teacher, all L2-normalised; s = 1/τ; p (B) product ids and ι (B + Q) = [p, queued ids] those of the banks.
    ℐ = [f', queued images], 𝒯 = [t', queued texts]  (B + Q, d)
    y_ij = 1[p_i = ι_j] / Σ_k 1[p_i = ι_k]           several views of a product are all right
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def product_targets(products: Tensor, bank: Tensor) -> Tensor:
    """y (B, B + Q), rows summing to 1."""
    right = (products[:, None] == bank).float()
    return right / right.sum(1, keepdim=True)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of -Σ_j q_j log softmax(logits)_j."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


def momentum_itc(
    image: Tensor, text: Tensor, teacher: tuple[Tensor, Tensor], bank: tuple[Tensor, Tensor], y: Tensor,
    scale: Tensor, alpha: float,
) -> Tensor:  # fmt: skip
    """½ [CE(s f 𝒯ᵀ) + CE(s t ℐᵀ)] with targets α softmax(teacher's similarities · s) + (1 - α) y [ALBEF, eq. 6].

    Args:
        teacher: f', t' (B, d). bank: ℐ, 𝒯 (B + Q, d). y: (B, B + Q).
    """
    total = image.new_zeros(())
    for student, known, others in ((image, teacher[0], bank[1]), (text, teacher[1], bank[0])):
        with torch.no_grad():
            target = alpha * (scale * known @ others.T).softmax(1) + (1 - alpha) * y if alpha else y
        total = total + soft_cross_entropy(scale * student @ others.T, target) / 2
    return total


def grit_itc(image: Tensor, text: Tensor, scale: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """In-batch one-hot loss plus `weight` times a consistency term, and that term [GRIT-VLP's code].

    The term asks each image's distribution over texts to be what its text's distribution over images is, and the
    other way round; targets carry no gradient.
    """
    by_image = scale * image @ text.T
    by_text = by_image.T
    rows = torch.arange(len(image), device=image.device)
    one_hot = (F.cross_entropy(by_image, rows) + F.cross_entropy(by_text, rows)) / 2
    agree = (
        soft_cross_entropy(by_image, by_text.detach().softmax(1))
        + soft_cross_entropy(by_text, by_image.detach().softmax(1))
    ) / 2  # fmt: skip
    return one_hot + weight * agree, agree
