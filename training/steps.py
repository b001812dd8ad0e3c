"""The gradient of one step, however its batch is divided into processes and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training import distributed
from training.distributed import Outputs
from training.task import Batch, Task

Rng = list[Tensor]


def backward(task: Task, batches: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], Outputs]:
    """Put the gradient of the whole batch's loss into `task`; returns the loss's parts and all rows' outputs.

    Args:
        batches: this rank's micro-batches, in the order of their rows.

    Several micro-batches are taken as in GradCache (Gao et al. 2021, arXiv 2101.06983): all are encoded without a
    graph, the loss of the joined outputs gives the gradient of every output, and each micro-batch is encoded again to
    carry it on. That is exact for losses that compare rows with each other, which plain accumulation is not.
    """
    if len(batches) == 1:
        outputs = distributed.gather(task.encode(batches[0], step))
        parts = task.losses(outputs, step)
        parts["loss"].backward()
    else:
        parts, outputs = _in_pieces(task, batches, step)
    distributed.average_gradients(task.parameters())
    return distributed.average(parts), outputs


def _in_pieces(task: Task, batches: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], Outputs]:
    before, pieces = [], []
    for batch in batches:
        before.append(_rng())
        with torch.no_grad():
            pieces.append(task.encode(batch, step))
    leaves = {key: _leaf(value) for key, value in distributed.join(pieces).items()}
    outputs = distributed.gather(leaves)
    parts = task.losses(outputs, step)
    parts["loss"].backward()
    after, start = _rng(), 0
    for batch, piece, state in zip(batches, pieces, before, strict=True):
        rows = len(next(iter(piece.values())))
        _set_rng(state)  # the same dropout as the first time
        again = task.encode(batch, step)
        carried = [
            (value, _rows_of(gradient, start, value))
            for key, value in again.items()
            if value.requires_grad and (gradient := leaves[key].grad) is not None
        ]
        if carried:
            torch.autograd.backward([value for value, _ in carried], [gradient for _, gradient in carried])
        start += rows
    _set_rng(after)
    return parts, outputs


def _rows_of(gradient: Tensor, start: int, value: Tensor) -> Tensor:
    """The rows of `gradient` from `start` on that belong to `value`, without the filling of its second axis."""
    rows = gradient[start : start + len(value)]
    return rows[:, : value.shape[1]] if value.ndim > 1 else rows


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_() if value.is_floating_point() else value


def _rng() -> Rng:
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _set_rng(state: Rng) -> None:
    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1:])
