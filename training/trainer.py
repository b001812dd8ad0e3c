"""The one training loop. It knows batches and tasks, and nothing of any method."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data import stage
from data.params import UserError
from data.record import write_atomically
from training import checkpoint
from training.config import TrainerConfig
from training.journal import METRICS, History, Journal
from training.task import Batch, Task

BAD_BATCH = "bad_batch.json"
RUNS = Path("runs/train")


class Batches(Protocol):
    """What the loop needs of a source of batches; see `training.source.Source`."""

    @property
    def steps(self) -> int: ...
    def starts_epoch(self, step: int) -> int | None: ...
    def row_ids(self, step: int) -> list[str]: ...
    def batch(self, step: int) -> Batch: ...
    def close(self) -> None: ...


def fit(task: Task, source: Batches, config: TrainerConfig, *, name: str, binding: str) -> History:
    """Train `task` to the end of `source`; take up an unfinished run of the same `binding` where it stopped.

    Args:
        name: of the stage; checkpoints and rates go to runs/train/<name>/.
        binding: hash of everything that decides the result.

    Returns the log: per interval the step, learning rate, loss and parts (means over the interval), free of times.
    Raises `UserError` on a signal (after saving) and on a loss that is not finite (the batch is saved).
    """
    runs = RUNS / name
    folder = runs / binding[:16]
    device = prepare(config)
    freeze(task.encoder, config.frozen)
    task.to(device).train()
    task.precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
    optimiser = make_optimiser(task, config)
    journal = Journal(runs / METRICS, source.steps, config.batch, config.log_every)
    start = _resume(folder, task, optimiser, journal, name)
    with signals() as received, contextlib.closing(source):
        for step in stage.progress(range(start, source.steps), what="steps", label=name):
            if (epoch := source.starts_epoch(step)) is not None:
                task.on_epoch(epoch)
            lr = learning_rate(step, source.steps, config)
            for group in optimiser.param_groups:
                group["lr"] = lr * group["factor"]
            parts = task.training_step(to_device(source.batch(step), device), step)
            if not torch.isfinite(parts["loss"]):
                raise _not_finite(runs / BAD_BATCH, name, step, parts, source.row_ids(step))
            parts["loss"].backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            task.after_step()
            journal.add(step, lr, parts)
            done = step + 1
            if done == source.steps:
                break
            if received or done % config.checkpoint_every == 0:
                checkpoint.save(folder, done, _state(task, optimiser, journal))
            if received:
                raise UserError(
                    f"{name}: stopped by {received[0]} after step {done} of {source.steps}; the checkpoint is saved, "
                    "and the same command goes on from there."
                )
    task.eval()
    return journal.history


def prepare(config: TrainerConfig) -> torch.device:
    """Fix what the last bit of the result depends on, and choose the device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and found == "cpu":
        raise UserError("trainer.device: `cuda` is asked for but torch sees no GPU; set it to `auto` or `cpu`.")
    return torch.device(found if config.device == "auto" else config.device)


def freeze(encoder: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let only parameters outside `prefixes` learn. Raises `UserError` for a prefix that names nothing."""
    names = [name for name, _ in encoder.named_parameters()]
    for prefix in prefixes:
        if not any(_below(name, (prefix,)) for name in names):
            raise UserError(f"trainer.frozen: no parameter is named `{prefix}...`; the first names are {names[:3]}.")
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(not _below(name, prefixes))


def make_optimiser(task: nn.Module, config: TrainerConfig) -> torch.optim.AdamW:
    """Fused AdamW; no weight decay for vectors and scalars (norms, biases, logit_scale); heads at `head_lr`."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim >= 2, ".head." in name), []).append(parameter)
    factor = (config.head_lr or config.lr) / config.lr
    return torch.optim.AdamW(
        [
            {"params": found, "weight_decay": config.weight_decay * decays, "factor": factor if head else 1.0}
            for (decays, head), found in groups.items()
        ],
        lr=config.lr, betas=config.betas, eps=config.eps, fused=True,
    )  # fmt: skip


def learning_rate(step: int, steps: int, config: TrainerConfig) -> float:
    """Linear warm-up, then cosine to 0 over what is left [open_clip_train/scheduler.py]."""
    warmup = min(config.warmup, steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors and `Tokens` in nested mappings and tuples, moved to `device`."""
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_device(item, device) for item in value)
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)


@contextlib.contextmanager
def signals() -> Iterator[list[str]]:
    """A list that receives the name of SIGINT or SIGTERM; the handlers before are put back at the end."""
    received: list[str] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _state(task: Task, optimiser: torch.optim.Optimizer, journal: Journal) -> dict[str, Any]:
    return {
        "model": checkpoint.trainable_state(task),
        "optimiser": optimiser.state_dict(),
        "extra": task.extra_state(),
        "journal": journal.state(),
        "rng": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
    }


def _resume(folder: Path, task: Task, optimiser: torch.optim.Optimizer, journal: Journal, name: str) -> int:
    """Put the newest checkpoint back and return the step to go on with; 0 for a fresh start."""
    state = checkpoint.latest(folder)
    if state is None:
        journal.open(0)
        return 0
    checkpoint.load_trainable(task, state["model"])
    optimiser.load_state_dict(state["optimiser"])
    task.load_extra_state(state["extra"])
    torch.set_rng_state(state["rng"][0])
    torch.cuda.set_rng_state_all(state["rng"][1:])
    journal.load(state["journal"])
    journal.open(state["step"])
    stage.log(f"[{name}] resumes after step {state['step']} ({folder})")
    return int(state["step"])


def _not_finite(path: Path, name: str, step: int, parts: dict[str, Tensor], row_ids: list[str]) -> UserError:
    """Keep the batch that broke the loss, and say so."""
    values = {key: repr(value.item()) for key, value in parts.items()}
    write_atomically(path, json.dumps({"step": step, "parts": values, "row_ids": row_ids}, indent=2) + "\n")
    broken = ", ".join(f"{key} {value}" for key, value in values.items() if value in ("nan", "inf", "-inf"))
    return UserError(
        f"{name}: the loss of step {step} is not a finite number ({broken}); lower `lr` or look at the products of its "
        f"batch, listed in {path}."
    )
