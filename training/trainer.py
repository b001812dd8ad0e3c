"""The one training loop. It knows batches and tasks, and nothing of any method."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from data import stage
from data.params import UserError
from data.record import write_atomically
from training import checkpoint, distributed
from training.averaging import Average
from training.config import TrainerConfig
from training.journal import METRICS, History, Journal
from training.schedule import learning_rate
from training.source import Batches
from training.steps import backward
from training.task import Task

BAD_BATCH = "bad_batch.json"
RUNS = Path("runs/train")


@dataclass(frozen=True)
class Fitted:
    """The log of a training: means per interval, and what each validation found; free of times."""

    history: History
    validations: History


class Run:
    """One training in progress: everything a checkpoint holds."""

    def __init__(self, task: Task, source: Batches, config: TrainerConfig, name: str, binding: str) -> None:
        self.task, self.source, self.config, self.name, self.binding = task, source, config, name, binding
        self.folder = RUNS / name / binding[:16]
        self.device = prepare(config)
        freeze(task, config.frozen)
        task.to(self.device).train()
        task.precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        task.seed, task.rows = config.seed, config.batch
        if config.compile:
            for trunk in (task.encoder.image.trunk, task.encoder.text.trunk):
                trunk.compile(dynamic=True)
        self.optimiser = make_optimiser(task, config)
        self.average = Average(task, config.ema) if config.ema else None
        path = RUNS / name / METRICS if distributed.rank() == 0 else None
        self.journal = Journal(path, source.steps, config.batch, config.log_every)
        self.watch: list[tuple[int, dict[str, Tensor]]] = []

    def step(self, step: int) -> None:
        """One step of the optimiser."""
        if (epoch := self.source.starts_epoch(step)) is not None:
            self.task.on_epoch(epoch)
        progress = self.source.progress(step)
        lr = learning_rate(step, self.source.steps, self.config, int(progress))
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["factor"]
        self.task.before_step(step, progress)
        batches = [to_device(batch, self.device) for batch in self.source.batches(step)]
        parts, outputs = backward(self.task, batches, step)
        if self.config.clip is not None:
            parts = {**parts, "grad_norm": nn.utils.clip_grad_norm_(self.task.parameters(), self.config.clip)}
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.task.after_step()
        if self.average:
            self.average.update()
        self.source.observe(step, {key: value.detach() for key, value in outputs.items()})
        self.watch.append((step, {key: value.detach() for key, value in parts.items()}))
        self.journal.add(step, lr, parts)

    def demand_finite(self) -> None:
        """Raise for the first step since the last call whose loss was not a finite number.

        Called before anything is kept of those steps. Looking at every step would make the host wait for the device.
        """
        watched, self.watch = self.watch, []
        if watched and not bool(torch.isfinite(torch.stack([parts["loss"] for _, parts in watched])).all()):
            step, parts = next((s, p) for s, p in watched if not math.isfinite(float(p["loss"])))
            raise not_finite(RUNS / self.name / BAD_BATCH, self.name, step, parts, self.source.row_ids(step))

    def validate(self, done: int) -> None:
        """Note what the model, or its average, gets on the validation split; keep it if it is the best so far."""
        with self.average.in_place() if self.average else contextlib.nullcontext():
            self.task.eval()
            numbers = self.task.validate()
            self.task.train()
            if self.journal.validated(done, numbers) and distributed.rank() == 0:
                checkpoint.save_best(self.folder, self.binding, checkpoint.trainable_state(self.task))

    def save(self, done: int) -> None:
        """Write a checkpoint after `done` steps."""
        rng = distributed.everyone([torch.get_rng_state(), *torch.cuda.get_rng_state_all()])
        if distributed.rank() == 0:
            checkpoint.save(self.folder, done, self.binding, {
                "model": checkpoint.trainable_state(self.task), "optimiser": self.optimiser.state_dict(),
                "extra": self.task.extra_state(), "source": self.source.state(), "journal": self.journal.state(),
                "average": self.average.state() if self.average else {}, "rng": rng,
            })  # fmt: skip

    def resume(self) -> int:
        """Put the newest checkpoint back and return the step to go on with; 0 for a fresh start."""
        state = checkpoint.latest(self.folder, self.binding)
        if state is None:
            torch.manual_seed(self.config.seed + distributed.rank())
            self.journal.open(0)
            return 0
        checkpoint.load_trainable(self.task, state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.load_extra_state(state["extra"])
        self.source.load_state(state["source"])
        if self.average:
            self.average.load(state["average"])
        rng = state["rng"][min(distributed.rank(), len(state["rng"]) - 1)]
        torch.set_rng_state(rng[0])
        torch.cuda.set_rng_state_all(rng[1:])
        self.journal.load(state["journal"])
        self.journal.open(state["step"])
        stage.log(f"[{self.name}] resumes after step {state['step']} ({self.folder})")
        return int(state["step"])

    def finish(self) -> Fitted:
        """The trained weights into the task: the last ones, their average, or the best validated."""
        if self.average:
            self.average.install()
        if self.config.select == "best":
            distributed.wait()
            checkpoint.load_trainable(self.task, checkpoint.best(self.folder, self.binding))
        self.task.eval()
        return Fitted(self.journal.history, self.journal.validations)


def fit(task: Task, source: Batches, config: TrainerConfig, *, name: str, binding: str) -> Fitted:
    """Train `task` to the end of `source`; take up an unfinished run of the same `binding` where it stopped.

    Args:
        name: of the stage; checkpoints and rates go to runs/train/<name>/.
        binding: hash of everything that decides the result.

    Raises `UserError` on a signal (after saving), on a loss that is not finite (the batch is saved), and where memory
    does not suffice.
    """
    run = Run(task, source, config, name, binding)
    start = run.resume()
    steps: Iterable[int] = range(start, source.steps)
    if distributed.rank() == 0:
        steps = stage.progress(steps, what="steps", label=name)
    with signals() as received, contextlib.closing(source), enough_memory(name, config):
        for step in steps:
            run.step(step)
            done = step + 1
            stopped = distributed.any_rank(bool(received))
            ends = done == source.steps or source.starts_epoch(done) is not None
            due = stopped or done % config.checkpoint_every == 0
            if due or ends or done % config.log_every == 0:
                run.demand_finite()
            if ends and config.validate_every and round(source.progress(done)) % config.validate_every == 0:
                run.validate(done)
            if done < source.steps and due:
                run.save(done)
            if stopped and done < source.steps:
                raise UserError(
                    f"{name}: stopped by {received[0] if received else 'another process'} after step {done} of "
                    f"{source.steps}; the checkpoint is saved, and the same command goes on from there."
                )
    return run.finish()


def prepare(config: TrainerConfig) -> torch.device:
    """Fix what the last bit of the result depends on, and choose the device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and found == "cpu":
        raise UserError("trainer.device: `cuda` is asked for but torch sees no GPU; set it to `auto` or `cpu`.")
    chosen = found if config.device == "auto" else config.device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if chosen == "cuda" else torch.device(chosen)


def freeze(task: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let parameters outside `prefixes` learn; those the method itself froze stay so.

    Names are the task's, without the leading `encoder.`. Raises `UserError` for a prefix that names nothing.
    """
    named = {name.removeprefix("encoder."): parameter for name, parameter in task.named_parameters()}
    for prefix in prefixes:
        if not any(_below(name, (prefix,)) for name in named):
            raise UserError(f"trainer.frozen: no parameter is named `{prefix}...`; the first are {list(named)[:3]}.")
    for name, parameter in named.items():
        if _below(name, prefixes):
            parameter.requires_grad_(False)


def make_optimiser(task: Task, config: TrainerConfig) -> torch.optim.AdamW:
    """Fused AdamW; no weight decay for vectors and scalars (norms, biases, logit_scale).

    Projection heads and the method's own submodules learn at `head_lr`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            new = ".head." in name or name.split(".")[0] in task.saved
            groups.setdefault((parameter.ndim >= 2, new), []).append(parameter)
    factor = (config.head_lr or config.lr) / config.lr
    return torch.optim.AdamW(
        [
            {"params": found, "weight_decay": config.weight_decay * decays, "factor": factor if new else 1.0}
            for (decays, new), found in groups.items()
        ],
        lr=config.lr, betas=config.betas, eps=config.eps, fused=True,
    )  # fmt: skip


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


@contextlib.contextmanager
def enough_memory(name: str, config: TrainerConfig) -> Iterator[None]:
    """Say which setting to change where memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"{name}: out of memory with {config.batch} products in {config.accumulate} micro-batch(es); raise "
            f"trainer.accumulate to {2 * config.accumulate} (same result, less memory) or lower trainer.batch."
        ) from error


def not_finite(path: Path, name: str, step: int, parts: dict[str, Tensor], row_ids: list[str]) -> UserError:
    """Keep the batch that broke the loss, and say so."""
    values = {key: repr(value.item()) for key, value in parts.items()}
    write_atomically(path, json.dumps({"step": step, "parts": values, "row_ids": row_ids}, indent=2) + "\n")
    broken = ", ".join(f"{key} {value}" for key, value in values.items() if value in ("nan", "inf", "-inf"))
    return UserError(
        f"{name}: the loss of step {step} is not a finite number ({broken}); lower `lr` or look at the products of its "
        f"batch, listed in {path}."
    )


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
