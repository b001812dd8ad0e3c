"""Losses over a teacher and a queue, as ALBEF's family of methods has them; here in SIMLA's form.

Li et al. 2021, arXiv 2107.07651; Khan et al. 2022, arXiv 2203.14395 (P), authors' code C. B pairs, d embedding, M
masked positions, V words or codes; a prime marks the momentum teacher's, τ temperature, α weight of its soft targets.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.fused.momentum import Queue


def embedding(tower: Any, features: Tensor) -> Tensor:
    """norm(g(feature)) of trunk features (B, D), float32 (B, d)."""
    return F.normalize(tower.head(features.float()), dim=-1)


def contrast(
    f: Tensor, t: Tensor, f_teacher: Tensor, t_teacher: Tensor, queue: Queue, scale: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """L_itc, and the student's in-batch logits s and u (B, B) [P §2.2 eq. 1-4].

    s_i = f_iᵀ[t'_1 … t'_B, Q_txt] / τ and u_i = t_iᵀ[f'_1 … f'_B, Q_img] / τ: also the positive's key is the teacher's.
    Targets α softmax(s') + (1-α) onehot(i); the gradient reaches τ through s and u only.
    """
    f_teacher, t_teacher, rows = f_teacher.detach(), t_teacher.detach(), len(f)
    texts, images = torch.cat([t_teacher, queue.text]), torch.cat([f_teacher, queue.image])
    total = f.new_zeros(())
    logits = []
    for query, teacher, bank in ((f, f_teacher, texts), (t, t_teacher, images)):
        found = scale * query @ bank.T
        with torch.no_grad():
            target = alpha * (scale * teacher @ bank.T).softmax(1)
            target[:, :rows] += (1 - alpha) * torch.eye(rows, device=f.device)
        total = total - (target * found.log_softmax(1)).sum(1).mean() / 2
        logits.append(found[:, :rows])
    return total, logits[0], logits[1]


@torch.no_grad()
def hard_negatives(logits: Tensor, generator: torch.Generator) -> Tensor:
    """For each row another column, drawn by the softmax of the logits (B, B) off the diagonal [C pretrain.py].

    10⁻⁴ is added first: a softmax that is one-hot on the diagonal would leave nothing to draw from.
    """
    weights = logits.detach().float().softmax(1) + 1e-4
    weights.fill_diagonal_(0)
    return torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0].to(logits.device)


def match(logits: Tensor) -> Tensor:
    """Cross-entropy (3B,) of L_itm for fused [CLS] logits of B true pairs and 2B false ones [P §2.2 eq. 5]."""
    labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    labels[: len(logits) // 3] = 1
    return F.cross_entropy(logits, labels, reduction="none")


def distilled(logits: Tensor, labels: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """(1-α) CE(a, label) - α Σ softmax(a') log softmax(a) of each masked position (M,) [P §2.3 eq. 6-7].

    Over words or codes: the released code takes the soft term's log-softmax over the sequence instead.
    """
    logs = logits.log_softmax(-1)
    hard = -logs.gather(1, labels[:, None])[:, 0]
    soft = -(teacher.softmax(-1) * logs).sum(-1)
    return (1 - alpha) * hard + alpha * soft


def per_row(values: Tensor, mask: Tensor) -> Tensor:
    """Sums (B,) of the values (M,) that belong to the places set in `mask` (B, N)."""
    rows = mask.nonzero()[:, 0]
    return values.new_zeros(len(mask)).index_add(0, rows, values)
