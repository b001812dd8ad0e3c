"""A head on the fused [CLS], in training as any method (`training.task.Task`) and answering afterwards.

Its folder holds the encoder's three files, `head.json` (settings and classes) and `head.safetensors` (stack and
classifier). Rows B, classes C, pictures per row P, width W.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from data.params import UserError, canonical, strict
from training.distributed import Outputs
from training.encoder import DualEncoder, load_encoder, save_encoder
from training.fused.alignment import distilled
from training.fused.heads.stack import Shape, Stack
from training.fused.momentum import Teacher
from training.source import Batches
from training.task import Batch, Task, Tokens

HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
Classifier = Literal["relu", "norm", "linear"]


class Head(Task):
    """A classifier and the stack under it, fine-tuned together with both towers.

    A batch holds `image` uint8 (b, P, 3, H, W), `caption` (`Tokens` of b texts) and `label` int64 (b,).
    """

    stage = "finetune"
    inputs: ClassVar[tuple[Path, ...]] = ()
    saved = ("stack", "classifier")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings.

        Attributes:
            task, method: what it answers, and the method that trained the model it started from.
            classes: in the order of its outputs.
            shape: of the stack.
            classifier: `relu`, Linear-ReLU-Linear (SNLI-VE, NLVR2 [SIMLA's code]); `norm`, Linear-LayerNorm-Linear
                (categories [FashionSAP's code]); `linear`.
            alpha: weight of the momentum teacher's soft targets, 0 for none; `ramp` raises it over the first epoch.
            momentum: of that teacher.
        """

        task: str
        method: str
        classes: tuple[str, ...]
        shape: Shape
        classifier: Classifier = "relu"
        alpha: float = 0.0
        ramp: bool = True
        momentum: float = 0.995

    config: Config

    def __init__(self, config: Config, encoder: DualEncoder, stack: Stack) -> None:
        super().__init__(config, encoder)
        width = encoder.config.text.shape["hidden_size"]
        self.stack = stack
        self.classifier = _classifier(config.classifier, width, len(config.classes))
        for unused in (encoder.image.head, encoder.text.head):
            unused.requires_grad_(False)
        encoder.logit_scale.requires_grad_(False)
        encoder.image.trunk.mask_token.requires_grad_(False)
        self.alpha = 0.0
        self.teacher: Teacher | None = None
        self.batches: Batches | None = None  # these two are set by the fine-tuning command
        self.held: Any = None  # examples that `validate` asks

    def begin(self) -> None:
        """A teacher equal to the student, where its targets count."""
        if self.config.alpha:
            self.teacher = Teacher(self._parts())

    def source(self, trainer: Any, name: str) -> Batches:
        assert self.batches is not None
        return self.batches

    def before_step(self, step: int, progress: float) -> None:
        self.alpha = self.config.alpha * (min(1.0, progress) if self.config.ramp else 1.0)
        if self.teacher is not None:
            self.teacher.update(self.config.momentum)

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

    def after_step(self) -> None:
        """No temperature here."""

    def logits(self, pixels: Tensor, tokens: Tokens, parts: Mapping[str, Any] | None = None) -> Tensor:
        """Float32 (b, C), by the student or by the teacher's `parts`."""
        by: Mapping[str, Any] = parts or self._parts()
        with self.autocast():
            seen = by["image"].trunk.tokens(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
            fused = by["stack"](by["text"].trunk, tokens, seen.unbind(1))
        found: Tensor = by["classifier"](fused.float())
        return found

    def validate(self) -> dict[str, float]:
        """Share of the held-out examples that it answers right."""
        return {} if self.held is None else {"held_out_accuracy": round(self.held.accuracy(self), 4)}

    def extra_state(self) -> dict[str, Tensor]:
        return {} if self.teacher is None else self.teacher.state()

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        if self.teacher is not None:
            self.teacher.load_state(state)

    def save(self, folder: Path) -> None:
        save_encoder(folder, self.encoder)
        text = json.dumps(canonical(self.config), indent=2, sort_keys=True)
        (folder / HEAD).write_text(text + "\n", encoding="utf-8")
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.own_state().items()}
        safetensors.torch.save_file(state, folder / HEAD_WEIGHTS)

    def _parts(self) -> dict[str, nn.Module]:
        return {
            "image": self.encoder.image, "text": self.encoder.text, "stack": self.stack, "classifier": self.classifier,
        }  # fmt: skip


def load_head(folder: Path) -> Head:
    """The head that `save` wrote, in eval mode. Raises `UserError` if the files do not fit."""
    path = folder / HEAD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Fine-tune the model again.") from None
    config = strict(Head.Config, content, str(path))
    encoder = load_encoder(folder)
    head = Head(config, encoder, Stack(config.shape, encoder.config))
    take_weights(head, folder)
    return head.eval()


def take_weights(head: Head, folder: Path, only: tuple[str, ...] = Head.saved) -> None:
    """Put the weights of a head's folder into `head`: the submodules named by `only`. Raises `UserError`."""
    path = folder / HEAD_WEIGHTS
    state = {key: value for key, value in safetensors.torch.load_file(path).items() if key.split(".")[0] in only}
    try:
        wrong = [key for key in head.load_state_dict(state, strict=False).missing_keys if key.split(".")[0] in only]
    except RuntimeError as error:
        raise UserError(f"{path}: weights of another shape ({' '.join(str(error).split())[:200]}).") from None
    if wrong:
        raise UserError(f"{path}: not of this version of the head ({wrong[0]} is missing). Fine-tune the model again.")


def _classifier(kind: Classifier, width: int, classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, classes)
    between: nn.Module = nn.ReLU() if kind == "relu" else nn.LayerNorm(width, eps=1e-12)
    return nn.Sequential(nn.Linear(width, width), between, nn.Linear(width, classes))
