"""Several processes, one batch: features of all ranks side by side, so that a loss over the global batch is exact.

Every rank encodes its own rows and gathers everyone's outputs; the loss over all of them is then computed either on
every rank alike, or each rank's share of it (`Shard`). Gradients of parameters are averaged over the ranks. With one
process every function here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Outputs = dict[str, Tensor]
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Shard:
    """The rows of the global batch that this rank computes, where a loss is shared out by rows."""

    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """This rank's rows."""
        return tensor[self.start : self.stop]


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def start() -> bool:
    """Join the other processes if a launcher (torchrun, Ray Train) announced any; whether it did this here."""
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    return True


def stop() -> None:
    """Leave the group that `start` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(rows: int) -> Shard:
    """This rank's share of `rows`, which the number of ranks divides."""
    each = rows // size()
    return Shard(rank() * each, (rank() + 1) * each)


def mean(total: Tensor, count: Tensor | int) -> Tensor:
    """The global mean as this rank's share of the loss: averaged over the ranks, Σ total / Σ count.

    `total` is a sum over this rank's rows and `count` how many they are; 0 where nobody has any.
    """
    everyone = torch.as_tensor(count, dtype=torch.float32, device=total.device).clone()
    if size() > 1:
        dist.all_reduce(everyone)
    return total * size() / everyone.clamp_min(1)


def gather(outputs: Outputs) -> Outputs:
    """Outputs of all ranks, rank by rank along the first axis; gradients flow back to the rank they came from."""
    return outputs if size() == 1 else {key: _gather(value) for key, value in outputs.items()}


def join(pieces: Sequence[Outputs]) -> Outputs:
    """Outputs of micro-batches as of one batch; where the second axis (tokens) differs, zeros fill it."""
    return {key: torch.cat(_level([piece[key] for piece in pieces])) for key in pieces[0]}


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks: one message. Nothing overlaps with the backward pass.

    `DistributedDataParallel` would fire once per micro-batch and sees a forward call only; the gradients here come
    from several backward passes of one step.
    """
    if size() == 1:
        return
    learning = [p for p in parameters if p.requires_grad]
    for parameter in learning:
        if parameter.grad is None:  # every rank must send the same tensors
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in learning if p.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)
    dist.all_reduce(flat)
    flat /= size()
    for gradient, value in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(value)


def average(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars averaged over the ranks, for the log."""
    if size() == 1:
        return values
    stacked = torch.stack([value.detach().float() for value in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / size()).unbind(), strict=True))


def any_rank(flag: bool) -> bool:
    """Whether it holds on any rank: all must stop at the same step."""
    if size() == 1:
        return flag
    found = torch.tensor(int(flag))
    if dist.get_backend() == "nccl":
        found = found.cuda()
    dist.all_reduce(found)
    return bool(found.item())


def everyone(value: Any) -> list[Any]:
    """A picklable value of every rank, in their order."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def agreed(value: bool) -> bool:
    """What the first rank says, on every rank."""
    return bool(everyone(value)[0])


def wait() -> None:
    """Until every rank has come here."""
    if size() > 1:
        dist.barrier()


def _gather(value: Tensor) -> Tensor:
    if value.ndim > 1:  # ranks pad their tokens to their own longest
        longest = torch.tensor(value.shape[1], device=value.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        value = _padded(value, int(longest))
    return _AllGather.apply(value.contiguous())


def _level(values: list[Tensor]) -> list[Tensor]:
    if values[0].ndim < 2:
        return values
    longest = max(value.shape[1] for value in values)
    return [_padded(value, longest) for value in values]


def _padded(value: Tensor, length: int) -> Tensor:
    if value.shape[1] == length:
        return value
    filler = value.new_zeros(len(value), length - value.shape[1], *value.shape[2:])
    return torch.cat([value, filler], 1)


class _AllGather(torch.autograd.Function):
    """All-gather along the first axis; backward, the sum over ranks of the gradient of this rank's rows."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        made = [torch.empty_like(value) for _ in range(size())]
        dist.all_gather(made, value)
        context.rows = len(value)
        return torch.cat(made)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[rank() * context.rows : (rank() + 1) * context.rows]
