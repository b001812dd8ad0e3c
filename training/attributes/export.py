"""CMA-CLIP's served function: pixels and token ids in, probabilities of every attribute and gate weights out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.task import ExportFunction, Tokens

if TYPE_CHECKING:
    from training.methods.cma_clip import CmaClip

EXAMPLES = ("a red dress", "a pair of blue running shoes for women")


class Attributes(nn.Module):
    """pixels float32 (B, 3, H, W) in 0 to 255, ids and mask int64 (B, L), to probabilities (B, C_k) and λ (B, K, 2).

    A row whose mask is all 0 has no text.
    """

    def __init__(self, task: CmaClip) -> None:
        super().__init__()
        self.task = task

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        has_text = mask.sum(1) > 0
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask.masked_fill(first & ~has_text[:, None], 1)  # hidden later: a tower must read something
        found, weights = self.task.recognise({"image": pixels, "caption": Tokens(ids, mask), "has_text": has_text})
        return *found.values(), weights


def attributes_function(task: CmaClip) -> ExportFunction:
    """The function with example inputs; batch and text length are free."""
    height, width = task.encoder.config.image_size
    ids, mask = task.encoder.tokenize(EXAMPLES)
    return ExportFunction(
        module=Attributes(task).eval(),
        inputs={"pixels": torch.zeros(len(EXAMPLES), 3, height, width), "ids": ids, "mask": mask},
        outputs=(*task.tasks, "modality_weights"),
        axes={"pixels": {0: "batch"}, "ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}},
    )
