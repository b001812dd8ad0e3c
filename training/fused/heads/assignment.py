"""Text assignment, NLVR2's pre-step: which of two pictures a caption is of, or neither of them.

Li et al. 2021 (ALBEF), arXiv 2107.07651 §4; SIMLA's Pretrain_NLVR.py. Of every row the caption is kept, and one or two
other pictures of the batch are drawn by the likeness of the pictures; a third of the rows get two wrong ones.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data.params import UserError
from training import distributed
from training.config import TrainerConfig
from training.distributed import Outputs
from training.fused.heads.head import Head
from training.source import Batches, Source, load_products, product_pictures, product_source
from training.task import DATASET, Batch, Tokens

DRAWS = 0  # purpose of chance
TEMPERATURE = 0.07
FIRST, SECOND, NEITHER = range(3)
ASKED = 256  # products of the validation split


class Assignment(Head):
    """The head in training on the catalog's pairs."""

    needs = frozenset({"image", "caption"})
    inputs = (DATASET,)

    def source(self, trainer: TrainerConfig, name: str) -> Batches:
        if trainer.batch < 3:
            raise UserError("trainer.batch: text assignment draws two other pictures; take at least 3.")
        return product_source(self, trainer, name)

    def encode(self, batch: Batch, step: int) -> Outputs:
        caption: Tokens = batch["caption"]
        with self.autocast():
            seen = self.encoder.image.trunk.tokens(batch["image"])
        likeness = self.encoder.project_image(seen[:, 0].detach().float())
        return {"seen": seen, "likeness": likeness, "ids": caption.ids, "mask": caption.mask}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """Of this rank's rows; pictures are drawn from all."""
        left, right, label = assign(outputs["likeness"], self.generator(step, DRAWS))
        shard = distributed.shard(len(label))
        pictures = [outputs["seen"].index_select(0, shard.of(side)) for side in (left, right)]
        tokens = Tokens(shard.of(outputs["ids"]), shard.of(outputs["mask"]))
        with self.autocast():
            fused = self.stack(self.encoder.text.trunk, tokens, pictures)
        logits, label = self.classifier(fused.float()), shard.of(label)
        each = F.cross_entropy(logits, label, reduction="none")
        right_ones = (logits.argmax(1) == label).float()
        return {
            "loss": distributed.mean(each.sum(), len(each)), "accuracy": distributed.mean(right_ones.sum(), len(each))
        }  # fmt: skip

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of captions of the validation split assigned right; guessing gets a third."""
        products = load_products(DATASET, "val")
        count = min(len(products.row_ids), ASKED)
        config = TrainerConfig(batch=count, epochs=1, crop=1.0, title_share=1.0, accumulate=1)
        pictures = product_pictures(self.encoder, products, config, self.stage)
        source = Source(products, self.encoder, pictures, config, self.needs)
        batch: dict[str, Any] = source.sample(count)  # type: ignore[assignment]
        source.close()
        device = self.encoder.logit_scale.device
        moved = {"image": batch["image"].to(device), "caption": batch["caption"].to(device)}
        found = self.losses(self.encode(moved, 0), 0)
        return {"val_assignment_accuracy": round(float(found["accuracy"]), 4)}


@torch.no_grad()
def assign(likeness: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the left and of the right picture and the label, int64 (B,) each, for B captions.

    `likeness` (B, d): unit vectors. Others are drawn by softmax(f fᵀ / 0.07), never the caption's own picture.
    """
    weights = (likeness @ likeness.T / TEMPERATURE).softmax(1) + 1e-4  # else one that dwarfs the others leaves none
    weights.fill_diagonal_(0)
    others = torch.multinomial(weights.cpu(), 2, generator=generator)
    chance, own = torch.rand(2, len(likeness), generator=generator), torch.arange(len(likeness))
    neither, swapped = chance[0] < 1 / 3, chance[1] < 0.5
    left = torch.where(neither, others[:, 1], torch.where(swapped, others[:, 0], own))
    right = torch.where(neither | ~swapped, others[:, 0], own)
    label = torch.where(neither, NEITHER, torch.where(swapped, SECOND, FIRST))
    device = likeness.device
    return left.to(device), right.to(device), label.to(device)
