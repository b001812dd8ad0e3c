"""ce_clip: contrasting intra-modal and ranking cross-modal hard negatives (Zhang, Awal, Agrawal, CVPR 2024).

arXiv 2306.08832; code lezhang7/Enhance-FineGrained (EFG below). Symbols, B products and K = 4 negatives each:
    I (B, D), T (B, D), N (B, K, D)   image, caption and negative embeddings, L2-normalised;  s = exp(logit_scale)
    m (B, K)                          validity;  k = 0 relation, 1 attribute, 2 object, 3 action
    g_b = s⟨I_b, T_b⟩,  h_bk = s⟨I_b, N_bk⟩,  E_b(jk) = s⟨T_b, N_jk⟩,  θ (K)   adaptive threshold of the ranking loss
    L = L_itc + α L_cmr + β L_imc
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from training.distributed import Outputs
from training.encoder import DualEncoder
from training.losses import MASKED, itc
from training.sampling import TYPES
from training.task import Batch, Task, Tokens

INVALID = "###"  # the text that stands for a negative that could not be made [EFG 47cef4e src/training/data.py]
Imc = Literal["paper", "released_2023", "released_head", "own_only"]


class CeClip(Task):
    """CE-CLIP. θ is this task's only state besides the encoder."""

    needs = frozenset({"image", "caption", "negatives"})
    stage = "train@ce_clip"

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the loss, with the publication's values.

        Attributes:
            alpha: weight of L_cmr [EFG loss.py, default 0.2].
            beta: weight of L_imc [EFG loss.py, default 0.2; the HEAD script says 0.3].
            threshold: how θ follows the batch: `mean` as published, `max` and `fixed` the ablations [EFG loss.py].
            upper: u, the bound of θ in logits [EFG params.py, default 10; best of 5, 10, 15 in the ablation].
            fixed: θ of the mode `fixed` [EFG params.py, default 2].
            cmr_reduction: `all` divides by B K, invalid ones counting as zero [EFG loss.py `.mean()`]; `valid` by Σ m.
            itc_mask_invalid: take invalid negatives out of L_itc; a remark in EFG 7b58a00 calls that worse.
            imc: which of the forms of L_imc; the two released ones do not match the paper's equation [EFG issue 15].
            imc_mask_invalid: take invalid negatives out of `paper` and `own_only`; the released forms always keep them.
        """

        alpha: float = 0.2
        beta: float = 0.2
        threshold: Literal["mean", "max", "fixed"] = "mean"
        upper: float = 10.0
        fixed: float = 2.0
        cmr_reduction: Literal["all", "valid"] = "all"
        itc_mask_invalid: bool = False
        imc: Imc = "paper"
        imc_mask_invalid: bool = True

    config: Config
    theta: Tensor

    def __init__(self, config: Config, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        self.invalid = Tokens(*encoder.tokenize([INVALID]))
        self.register_buffer("theta", torch.zeros(len(TYPES)), persistent=False)
        self.on_epoch(0)

    def on_epoch(self, epoch: int) -> None:
        """θ starts anew with every epoch: in the reference it is a local of the epoch's function [EFG train.py]."""
        self.theta.fill_(self.config.fixed if self.config.threshold == "fixed" else 0.0)

    def encode(self, batch: Batch, step: int) -> Outputs:
        """image I and text T (b, D), negative N (b, K, D), valid m bool (b, K)."""
        negatives, valid = batch["negatives"]
        text, negative = self.five_texts(batch["caption"], negatives, valid)
        return {"image": self.images(batch), "text": text, "negative": negative, "valid": valid}

    def five_texts(self, captions: Tokens, negatives: Tokens, valid: Tensor) -> tuple[Tensor, Tensor]:
        """T (b, D) and N (b, K, D). The text of invalid negatives is encoded once and shared; its gradients add up."""
        features = self.texts(captions, negatives, self.invalid.to(valid.device))
        count = len(captions.ids)
        rows = torch.full(valid.shape, len(features) - 1, device=valid.device)
        rows[valid] = torch.arange(count, len(features) - 1, device=valid.device)
        stacked = torch.cat([features[:count], features[rows.flatten()]])
        return split_texts(stacked, count)

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """All parts, with the θ of the step before; θ then moves on to this batch (the order matters) [EFG loss.py]."""
        c, scale = self.config, self.scale()
        image, text, negative, valid = (outputs[key] for key in ("image", "text", "negative", "valid"))
        g = scale * (image * text).sum(1)
        h = scale * torch.einsum("bd,bkd->bk", image, negative)
        e = scale * torch.einsum("bd,jkd->bjk", text, negative)
        parts = {
            "itc": itc(image, text, scale, negative, valid if c.itc_mask_invalid else None),
            "cmr": cmr(g, h, valid, self.theta, c.cmr_reduction),
            "imc": imc(c.imc, g, e, valid, c.imc_mask_invalid),
        }
        loss = parts["itc"] + c.alpha * parts["cmr"] + c.beta * parts["imc"]
        if c.threshold != "fixed":
            self.theta = next_theta(g, h, valid, self.theta, c.upper, c.threshold)
        return {"loss": loss, **parts, **dict(zip((f"theta_{t}" for t in TYPES), self.theta.unbind(), strict=True))}

    def extra_state(self) -> dict[str, Tensor]:
        return {"theta": self.theta}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.theta = state["theta"].to(self.theta.device)


def split_texts(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[T_0 … T_{B-1}, N_{0,0} … N_{0,3}, N_{1,0} …] (5B, D) to T (B, D) and N (B, 4, D): negatives are sample-major."""
    return features[:count], features[count:].reshape(count, len(TYPES), -1)


def cmr(g: Tensor, h: Tensor, valid: Tensor, theta: Tensor, reduction: Literal["all", "valid"] = "all") -> Tensor:
    """L_cmr = 1/(BK) Σ_bk max(0, θ_k + h_bk - g_b) m_bk, in logits."""
    hinge = (theta + h - g[:, None]).clamp_min(0) * valid
    return hinge.mean() if reduction == "all" else hinge.sum() / valid.sum().clamp_min(1)


@torch.no_grad()
def next_theta(g: Tensor, h: Tensor, valid: Tensor, theta: Tensor, upper: float, mode: str = "mean") -> Tensor:
    """θ_k ← clamp(mean_b g_b - Σ_b m_bk h_bk / Σ_b m_bk, 0, u); g runs over all samples, valid of type k or not.

    A type without a valid negative in the batch keeps its θ_k; the reference divides by zero there. `max` takes
    θ_k = max_b m_bk (g_b - h_bk) / 5 in place of the difference of means.
    """
    count = valid.sum(0)
    if mode == "max":
        gap = ((g[:, None] - h) * valid).amax(0) / 5
    else:
        gap = g.mean() - (h * valid).sum(0) / count.clamp_min(1)
    return torch.where(count > 0, gap.clamp(0, upper), theta)


def imc(mode: Imc, g: Tensor, e: Tensor, valid: Tensor, mask_invalid: bool) -> Tensor:
    """L_imc over text-text logits e (B, B, K), e[b, j, k] = s⟨T_b, N_jk⟩.

    paper:          -1/B Σ_b log( e^{g_b} / (e^{g_b} + Σ_jk e^{E_b(jk)}) )   (the positive is an image-text logit)
    own_only:       the same with the sample's own negatives, j = b, alone in the sum
    released_2023:  the same logits [g_b, E_b], but the target is column 1, the relation negative of sample 0
    released_head:  logits E_b alone, target column 0: again the relation negative of sample 0
    """
    count = len(g)
    if mask_invalid and mode in ("paper", "own_only"):  # a released form's target column may itself be invalid
        e = e.masked_fill(~valid, MASKED)
    if mode == "own_only":
        e = e.diagonal(dim1=0, dim2=1).T
    flat = e.reshape(count, -1)
    logits = flat if mode == "released_head" else torch.cat([g[:, None], flat], 1)
    target = torch.full((count,), int(mode == "released_2023"), device=g.device)
    return F.cross_entropy(logits, target)
