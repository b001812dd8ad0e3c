"""A head on the fused [CLS], in training as any method (`training.task.Task`) and answering afterwards.

Rows B, classes C, pictures per row P, width W.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.config import TowerSpec
from training.distributed import Outputs
from training.fused.alignment import distilled
from training.fused.heads.tuned import Tuned
from training.source import Batches
from training.task import Batch, Tokens

Classifier = Literal["relu", "norm", "linear"]


class Head(Tuned):
    """A classifier and the stack under it, fine-tuned together with both towers.

    A batch holds `image` uint8 (b, P, 3, H, W), `caption` (`Tokens` of b texts) and `label` int64 (b,).
    """

    saved = ("stack", "classifier")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Tuned.Config):
        """Settings.

        Attributes:
            classes: in the order of its outputs.
            classifier: `relu`, Linear-ReLU-Linear (SNLI-VE, NLVR2 [SIMLA's code]); `norm`, Linear-LayerNorm-Linear
                (categories [FashionSAP's code]); `linear`.
        """

        classes: tuple[str, ...]
        classifier: Classifier = "relu"

    config: Config

    def make(self, text: TowerSpec) -> None:
        self.classifier = _classifier(self.config.classifier, text.shape["hidden_size"], len(self.config.classes))
        self.batches: Batches | None = None  # these two are set by the fine-tuning command
        self.held: Any = None  # examples that `validate` asks

    def source(self, trainer: Any, name: str) -> Batches:
        assert self.batches is not None
        return self.batches

    def encode(self, batch: Batch, step: int) -> Outputs:
        made = {"logits": self.logits(batch["image"], batch["caption"]), "label": batch["label"]}
        if self.teacher is not None:
            with torch.no_grad():
                made["taught"] = self.logits(batch["image"], batch["caption"], self.teacher.parts)
        return made

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        logits, label = outputs["logits"], outputs["label"]
        each = distilled(logits, label, outputs.get("taught", logits.detach()), self.alpha)
        return {"loss": each.mean(), "accuracy": (logits.argmax(1) == label).float().mean()}

    def logits(self, pixels: Tensor, tokens: Tokens, parts: Mapping[str, Any] | None = None) -> Tensor:
        """Float32 (b, C), by the student or by the teacher's `parts`."""
        by: Mapping[str, Any] = parts or self.parts()
        with self.autocast():
            seen = by["image"].trunk.tokens(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
            fused = by["stack"](by["text"].trunk, tokens, seen.unbind(1))
        found: Tensor = by["classifier"](fused.float())
        return found

    def validate(self) -> dict[str, float]:
        """Share of the held-out examples that it answers right."""
        return {} if self.held is None else {"held_out_accuracy": round(self.held.accuracy(self), 4)}


def _classifier(kind: Classifier, width: int, classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, classes)
    between: nn.Module = nn.ReLU() if kind == "relu" else nn.LayerNorm(width, eps=1e-12)
    return nn.Sequential(nn.Linear(width, width), between, nn.Linear(width, classes))
