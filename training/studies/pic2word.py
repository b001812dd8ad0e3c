"""Pic2Word (Saito et al., CVPR 2023, arXiv 2302.03084), the peer that learns φ from images and no caption.

The pseudo word of an image must make "a photo of $" the text of that image and of no other one of the batch:
    x = image embedding (B, P), un-normalised;  v = φ(x);  y = f("a photo of $" with v)
    L = ½ [CE(s X Yᵀ) + CE(s Y Xᵀ)],  X, Y unit vectors, s = exp(logit_scale), CLIP's own
Settings after google-research/composed_image_retrieval (src/trainer.py, model/model.py).
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.composing.pseudo_words import Composer, check_prompt
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.losses import itc
from training.source import Source, product_source
from training.task import Batch, Tokens

WIDTH = 512
PHOTO = "a photo of $"


class Pic2Word(Composer):
    """φ: twice Linear, dropout, ReLU of width 512, then Linear. Needs pictures; the encoder stays frozen."""

    needs = frozenset({"image"})
    stage = "study pic2word"

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """`dropout` as published; `prompt` and `l2_normalize` as of LinCIR; `steps` of training, no more."""

        steps: int
        dropout: float = 0.1
        l2_normalize: bool = False
        prompt: str = "a photo of $ that {condition}"

        def __post_init__(self) -> None:
            check_prompt(self.prompt)

    config: Config

    def __init__(self, config: Config, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        self.phi = nn.Sequential(
            nn.Linear(self.embed_width, WIDTH), nn.Dropout(config.dropout), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.Dropout(config.dropout), nn.ReLU(),
            nn.Linear(WIDTH, self.word_width),
        )  # fmt: skip
        self.photo = Tokens(*encoder.tokenize([PHOTO]))

    def source(self, trainer: TrainerConfig, name: str) -> Source:
        """Pictures of the train split, cut off after `steps`."""
        made = product_source(self, trainer, name)
        made.plan = made.plan[: self.config.steps]
        return made

    def encode(self, batch: Batch, step: int) -> Outputs:
        with torch.no_grad():
            image = self.encoder.image.head(batch["image"]).float()
        photo = self.photo.to(image.device)
        tokens = Tokens(photo.ids.expand(len(image), -1), photo.mask.expand(len(image), -1))
        return {"image": F.normalize(image, dim=1), "text": F.normalize(self.embed(tokens, self.pseudo_word(image)))}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": itc(outputs["image"], outputs["text"], self.scale())}
