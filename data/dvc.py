"""Calling DVC, which lives in its own environment and is used only as a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.params import UserError, read_yaml

BIN = Path(sys.executable).parent
DVC_YAML, DVC_LOCK = Path("dvc.yaml"), Path("dvc.lock")


def environment() -> dict[str, str]:
    """The environment of a `dvc` process: this interpreter's commands first on PATH, so stages run with it."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}


def command(*arguments: str) -> list[str]:
    """The argument list of `dvc ARGUMENTS`, waiting for the repository lock rather than failing on it."""
    executable = BIN / "dvc"
    if not executable.exists():
        raise UserError(f"{executable}: not found. Run `make setup`.")
    return [str(executable), "--wait-for-lock", *arguments]


def call(*arguments: str, cwd: Path | None = None) -> str:
    """Run `dvc ARGUMENTS` and return what it prints. Raises `UserError` with DVC's own last words if it fails."""
    done = subprocess.run(command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {words[-1] if words else 'no message'}")
    return done.stdout


def repro(stages: Sequence[str] = (), *flags: str, cwd: Path | None = None) -> int:
    """`dvc repro`, its output passed through. Returns the exit code.

    DVC and the stage run in a process group of their own, because a stage outlives a killed `dvc`: a signal that ends
    this call ends the whole group.
    """
    process = subprocess.Popen(
        command("repro", *flags, *stages), cwd=cwd, env=environment(), start_new_session=True
    )  # fmt: skip
    try:
        return process.wait()
    except BaseException:
        stop_group(process)
        raise


def stop_group(process: subprocess.Popen[Any], patience: float = 30.0) -> None:
    """Interrupt a process group as Ctrl-C would (the trainer saves a checkpoint), then kill what is left.

    Returns when the whole group is gone, not only its first process. A second interruption while waiting kills at once.
    """
    try:
        if _signal_group(process, signal.SIGINT):
            _await_group(process, patience)
    finally:
        if _signal_group(process, signal.SIGKILL):
            _await_group(process, 5.0)


def _signal_group(process: subprocess.Popen[Any], sign: int) -> bool:
    process.poll()  # a dead leader that nobody waited for would keep its group alive
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True


def _await_group(process: subprocess.Popen[Any], patience: float) -> None:
    deadline = time.monotonic() + patience
    while _signal_group(process, 0) and time.monotonic() < deadline:
        time.sleep(0.05)


def lock(cwd: Path = Path()) -> Mapping[str, Any]:
    """The stages of dvc.lock: {stage: {cmd, deps, params, outs}}; empty before the first run."""
    path = cwd / DVC_LOCK
    if not path.exists():
        return {}
    return (read_yaml(path.read_text(encoding="utf-8")) or {}).get("stages", {})
