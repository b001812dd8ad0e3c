"""Checkpoints of a running training: enough to go on bit by bit, bound to what is being trained.

`runs/train/<stage>/<binding>/step-00000120.pt`; the binding is a hash of configuration and input records, so a changed
input never resumes an old run. Files appear by rename and the last two are kept, for one
may be cut off by a full disk, and `best.pt` where the run validates.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data import stage
from data.params import UserError

KEPT, BEST = 2, "best.pt"


def save(folder: Path, step: int, binding: str, state: dict[str, Any]) -> Path:
    """Write the state after `step` steps and drop all but the last two checkpoints."""
    path = _write(folder / f"step-{step:08d}.pt", {**state, "step": step, "binding": binding})
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return path


def save_best(folder: Path, binding: str, weights: dict[str, torch.Tensor]) -> None:
    """Keep the weights that validated best so far."""
    _write(folder / BEST, {"binding": binding, "model": weights})


def latest(folder: Path, binding: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Other bindings' folders beside it are cleared away.

    Raises `UserError` for a checkpoint that was put here from a run of other settings or inputs.
    """
    for other in folder.parent.glob("*"):
        if other.is_dir() and other != folder:
            stage.log(f"[{folder.parent.name}] settings or inputs changed: the unfinished run {other.name} is dropped")
            shutil.rmtree(other, ignore_errors=True)
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # a cut-off file surfaces as RuntimeError, EOFError, zip or unpickling errors
            words = " ".join(str(error).split())[:200]
            stage.log(f"[{folder.parent.name}] {path} cannot be read ({words}); trying the one before")
            continue
        return _of(state, path, binding)
    return None


def best(folder: Path, binding: str) -> dict[str, torch.Tensor]:
    """The weights that validated best."""
    path = folder / BEST
    return _of(torch.load(path, weights_only=True, map_location="cpu"), path, binding)["model"]


def _of(state: dict[str, Any], path: Path, binding: str) -> dict[str, Any]:
    found = str(state.get("binding", "?"))
    if found != binding:
        raise UserError(
            f"{path}: a checkpoint of another configuration or other inputs ({found[:12]}, not {binding[:12]}). "
            "Remove it to start over, or restore the params.yaml and inputs it was made with."
        )
    return state


def _write(path: Path, state: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    torch.save(state, partial)
    partial.replace(path)
    return path


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished stage, whose folder under runs/train this is; its rates stay."""
    for run in folder.glob("*/"):
        shutil.rmtree(run, ignore_errors=True)


def trainable_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that training changes; the rest comes from the base model again."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def load_trainable(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put `trainable_state` back."""
    own = trainable_state(module)
    if own.keys() != state.keys():
        raise ValueError(f"checkpoint of other parameters: {sorted(own.keys() ^ state.keys())[:5]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
