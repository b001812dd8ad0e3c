"""What every part fine-tuned on top of a fused method shares: the stack under it, its momentum teacher, its files.

Its folder holds the encoder's three files, `head.json` (settings) and `head.safetensors` (the stack and what is on it).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import safetensors.torch
from torch import Tensor, nn

from data.params import UserError, canonical, strict
from training.config import TowerSpec
from training.encoder import DualEncoder, load_encoder, save_encoder
from training.fused.heads.stack import Shape, Stack
from training.fused.momentum import Teacher
from training.task import Task

HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"


class Tuned(Task):
    """A stack and one part more on a trained dual encoder, fine-tuned together with both towers.

    A subclass makes its own part in `make`, and names it in `saved` beside the stack.
    """

    stage = "finetune"
    inputs: ClassVar[tuple[Path, ...]] = ()
    saved: ClassVar[tuple[str, ...]] = ("stack",)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings.

        Attributes:
            task, method: what it answers, and the method that trained the model it started from.
            shape: of the stack.
            alpha, ramp, momentum: weight of the momentum teacher's soft targets, 0 for none; whether it rises over the
                first epoch; and how slow that teacher is.
        """

        task: str
        method: str
        shape: Shape
        alpha: float = 0.0
        ramp: bool = True
        momentum: float = 0.995

    config: Config

    def __init__(self, config: Config, encoder: DualEncoder, stack: Stack) -> None:
        super().__init__(config, encoder)
        self.stack = stack
        self.make(encoder.config.text)
        for unused in (encoder.image.head, encoder.text.head):
            unused.requires_grad_(False)
        encoder.logit_scale.requires_grad_(False)
        encoder.image.trunk.mask_token.requires_grad_(False)
        self.alpha = 0.0
        self.teacher: Teacher | None = None

    def make(self, text: TowerSpec) -> None:
        """Make the part on top of the stack, on a text tower of that shape."""
        raise NotImplementedError

    def begin(self) -> None:
        """A teacher equal to the student, where its targets count."""
        if self.config.alpha:
            self.teacher = Teacher(self.parts())

    def before_step(self, step: int, progress: float) -> None:
        self.alpha = self.config.alpha * (min(1.0, progress) if self.config.ramp else 1.0)
        if self.teacher is not None:
            self.teacher.update(self.config.momentum)

    def after_step(self) -> None:
        """No temperature here."""

    def parts(self) -> dict[str, nn.Module]:
        """The student's modules, by the names under which the teacher has its own."""
        return {
            "image": self.encoder.image, "text": self.encoder.text,
            **{name: self.get_submodule(name) for name in self.saved},
        }  # fmt: skip

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

    def take_weights(self, folder: Path) -> None:
        """Take the weights of a head's folder. Raises `UserError` if they do not fit."""
        path = folder / HEAD_WEIGHTS
        content = safetensors.torch.load_file(path)
        state = {key: value for key, value in content.items() if key.split(".")[0] in self.saved}
        try:
            absent = self.load_state_dict(state, strict=False).missing_keys
        except RuntimeError as error:
            raise UserError(f"{path}: weights of another shape ({' '.join(str(error).split())[:200]}).") from None
        if wrong := [key for key in absent if key.split(".")[0] in self.saved]:
            raise UserError(
                f"{path}: not of this version of the head ({wrong[0]} is missing). Fine-tune the model again."
            )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote, in eval mode. Raises `UserError` if the files do not fit."""
        path = folder / HEAD
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Fine-tune the model again.") from None
        config = strict(cls.Config, content, str(path))
        encoder = load_encoder(folder)
        made = cls(config, encoder, Stack(config.shape, encoder.config))
        made.take_weights(folder)
        return made.eval()
