"""clip: plain contrastive fine-tuning on the same products and captions, the control every claim is measured against.

Radford et al. 2021 (arXiv 2103.00020), section 2.3 and figure 3. I image, T text, s = exp(logit_scale).
    L = ½ [CE(s I Tᵀ) + CE(s T Iᵀ)]
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from training.distributed import Outputs
from training.losses import itc
from training.task import BASE, DATASET, Batch, Task


class Clip(Task):
    """The control has no settings of its own; those of the optimiser are the trainer's."""

    needs = frozenset({"image", "caption"})
    stage = "train@clip"
    inputs = (DATASET, BASE)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def encode(self, batch: Batch, step: int) -> Outputs:
        """I and T, (b, D) each."""
        return {"image": self.images(batch), "text": self.texts(batch["caption"])}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": itc(outputs["image"], outputs["text"], self.scale())}
