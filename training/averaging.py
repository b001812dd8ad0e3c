"""An exponential moving average of the weights that learn, kept beside the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """θ̄ ← d θ̄ + (1 - d) θ over all parameters of `module` that learn, in one fused call."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values = [p.detach().clone() for p in self.named.values()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        torch._foreach_lerp_(self.values, list(self.named.values()), 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averaged weights in the module for a while."""
        trained = [p.detach().clone() for p in self.named.values()]
        self.install()
        try:
            yield
        finally:
            self._set(trained)

    def install(self) -> None:
        """The averaged weights in the module for good."""
        self._set(self.values)

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.named, self.values, strict=True))

    def load(self, state: dict[str, Tensor]) -> None:
        """Put `state` back."""
        for name, value in zip(self.named, self.values, strict=True):
            value.copy_(state[name])

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.named.values(), values, strict=True):
            parameter.copy_(value)
