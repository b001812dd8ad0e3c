"""What momentum distillation keeps besides the student: a slow copy of it, and rings of past features.

Li et al. 2021 (ALBEF), arXiv 2107.07651; He et al. 2020 (MoCo), arXiv 1911.05722.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data.params import UserError

NOBODY = -100  # the id of a queue's first noise


class Teacher(nn.Module):
    """Exponential moving averages of modules, each under the name it was given: `teacher.parts.image` and so on.

    Averages are buffers and not parameters: no optimiser, no gradient and no freezing can reach them. A teacher is
    always in eval mode, whatever the mode of the module it lives in (dropout would make its targets noise).
    """

    def __init__(self, students: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # Parts are kept in one module, so that what two parts share stays shared in the copy.
        self.parts: Any = copy.deepcopy(nn.ModuleDict(dict(students)))
        _as_buffers(self.parts)
        self._students = [students]  # in a list: the student is not a part of its teacher
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """θ' ← m θ' + (1 - m) θ. What the student does not learn is the same in both and stays."""
        means = dict(self.parts.named_buffers())
        pairs = [
            (means[f"{name}.{key}"], parameter)
            for name, student in self._students[0].items()
            for key, parameter in student.named_parameters()
            if parameter.requires_grad and f"{name}.{key}" in means
        ]
        if pairs:
            torch._foreach_lerp_([mean for mean, _ in pairs], [value for _, value in pairs], 1 - momentum)

    def state(self) -> dict[str, Tensor]:
        """The averages by name, for a checkpoint."""
        return dict(self.parts.named_buffers())

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back `state`."""
        for name, buffer in self.parts.named_buffers():
            buffer.copy_(state[name])


class Queue(nn.Module):
    """The last Q teacher features of both towers and their ids, as rings with one pointer.

    They start as normalised noise under the id `NOBODY` that no pair has: negatives from the first step on.

    Attributes:
        image, text: float32 (Q, d), L2-normalised rows.
        ids: int64 (Q,).
    """

    image: Tensor
    text: Tensor
    ids: Tensor
    pointer: Tensor

    def __init__(self, size: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        for name in ("image", "text"):
            noise = torch.randn(size, width, generator=generator)
            self.register_buffer(name, nn.functional.normalize(noise, dim=-1), persistent=False)
        self.register_buffer("ids", torch.full((size,), NOBODY), persistent=False)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        """Write B rows over the oldest ones, in place: only after the step's backward pass, which may read the ring.

        Raises `UserError` if B does not divide Q.
        """
        size, rows, start = len(self.ids), len(ids), int(self.pointer)
        if size % rows:
            raise UserError(f"methods: a queue of {size} is no multiple of the batch of {rows}; change one of them.")
        for ring, new in ((self.image, image), (self.text, text), (self.ids, ids)):
            ring[start : start + rows] = new
        self.pointer.fill_((start + rows) % size)

    def state(self) -> dict[str, Tensor]:
        """Rings and pointer by name, for a checkpoint."""
        return dict(self.named_buffers())

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back `state`."""
        for name, buffer in self.named_buffers():
            buffer.copy_(state[name])


def _as_buffers(module: nn.Module) -> None:
    """Turn every parameter below `module` into a buffer of the same name; shared ones stay shared."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            del part._parameters[name]
            part.register_buffer(name, None if parameter is None else parameter.data, persistent=False)
