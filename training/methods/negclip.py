"""negclip: hard negatives as further rows and columns of CLIP's loss (Yuksekgonul et al., ICLR 2023).

arXiv 2210.01936; code vinid/neg_clip (NEG) and mertyg/vision-language-models-are-bows (BOW). Per row of a batch of B:
    X, T, N      image, caption and text negative: two spans of the caption changed places
    X', T', N'   the same of a product whose picture is one of the nearest to X
    s = exp(logit_scale);   I = [X, X'] (2B),  C = [T, T', N, N'] (4B),  embeddings L2-normalised
    L = ½ [CE(s I Cᵀ, arange 2B) + CE(s C_{:2B} Iᵀ, arange 2B)]            [NEG src/open_clip/loss.py]

A caption without a text negative has no column: the softmax runs over those that there are. (The released data has one
for every caption; a short title need not have two spans of one kind.)
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from training.distributed import Outputs
from training.losses import itc
from training.task import Batch, Task

if TYPE_CHECKING:
    from training.config import TrainerConfig
    from training.source import Batches


class NegClip(Task):
    """NegCLIP. Batches hold besides image and caption: `hard_image` and `hard_caption` of the row's neighbour, and
    `negatives`, (`Tokens` of the V there are, sample-major; bool (b, 2): whether the row and its neighbour have one).
    """

    needs = frozenset({"image", "caption"})
    stage = "train@negclip"

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """What the negatives are.

        Attributes:
            text_negatives: `swaps` as published [BOW issue 13]; `catalog` draws from CE-CLIP's catalog edits instead,
                so that the two losses can be compared on the same negatives.
            neighbours: pictures a row's image negative is drawn from, nearest first [BOW valid_neg_clip.tsv: 3].
        """

        text_negatives: Literal["swaps", "catalog"] = "swaps"
        neighbours: int = 3

        def __post_init__(self) -> None:
            if self.neighbours < 1:
                raise ValueError(f"neighbours must be at least 1, found {self.neighbours}.")

    config: Config

    def source(self, trainer: TrainerConfig, name: str) -> Batches:
        """The products of the train split, each with a neighbour by the base model's image similarity."""
        from training.neighbours_source import neighbours_source

        return neighbours_source(self, trainer, name, self.config.text_negatives, self.config.neighbours)

    def encode(self, batch: Batch, step: int) -> Outputs:
        """image, text, negative (b, 2, D), each of the row and of its neighbour; valid (b, 2), zeros where False."""
        tokens, valid = batch["negatives"]
        rows = len(valid)
        image = self.images({"image": torch.cat([batch["image"], batch["hard_image"]])})
        features = self.texts(batch["caption"], batch["hard_caption"], tokens)
        negative = features.new_zeros(rows, 2, features.shape[1])
        negative[valid] = features[2 * rows :]
        return {"image": pairs(image), "text": pairs(features[: 2 * rows]), "negative": negative, "valid": valid}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """L: CLIP's loss over 2B rows with the 2B text negatives as further columns of the images' softmax."""
        image, text, negative, valid = (
            outputs[key].transpose(0, 1).flatten(0, 1) for key in ("image", "text", "negative", "valid")
        )
        return {"loss": itc(image, text, self.scale(), negative[:, None], valid[:, None])}


def pairs(stacked: Tensor) -> Tensor:
    """[X_0 … X_{b-1}, X'_0 … X'_{b-1}] (2b, D) to (b, 2, D)."""
    return stacked.unflatten(0, (2, -1)).transpose(0, 1)
