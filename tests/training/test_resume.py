"""A training process killed outright at any step goes on to the very same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

from tests.training import tiny
from training import checkpoint, train, trainer

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "training.train", "ce_clip"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(folder: Path) -> dict[str, bytes]:
    names = ("weights.safetensors", "metrics.jsonl", "loss.png", "record.json")
    return {name: (folder / "store/models/ce_clip" / name).read_bytes() for name in names}


def test_sigkill_at_any_step_then_the_same_command(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.change_params(workspace, "starter.trainer", epochs=30, log_every=1, checkpoint_every=7)  # 120 steps
    unbroken = tmp_path / "unbroken"
    shutil.copytree(workspace, unbroken)
    broken = command(workspace)
    journal = workspace / "runs/train/train@ce_clip/metrics.jsonl"
    at = random.Random().randrange(8, 110)  # any step will do; a failure names it
    while broken.poll() is None and (not journal.exists() or journal.read_text(encoding="utf-8").count("\n") < at):
        time.sleep(0.002)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL, f"the run ended before step {at}"
    assert not (workspace / "store/models/ce_clip").exists()
    assert list(workspace.glob("runs/train/train@ce_clip/*/step-*.pt"))

    again = command(workspace)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "resumes after step" in said
    monkeypatch.chdir(unbroken)
    assert train.main(["ce_clip"]) == 0
    assert weights(workspace) == weights(unbroken), f"killed at step {at}"
    assert not list(workspace.glob("runs/train/train@ce_clip/*/step-*.pt"))


def test_sigterm_ends_the_process_with_a_line_and_a_checkpoint(workspace: Path) -> None:
    tiny.change_params(workspace, "starter.trainer", epochs=500, log_every=1, checkpoint_every=1000)
    process = command(workspace)
    journal = workspace / "runs/train/train@ce_clip/metrics.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_text(encoding="utf-8").count("\n") > 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: train@ce_clip: stopped by SIGTERM after step" in said
    assert "Traceback" not in said
    assert len(list(workspace.glob("runs/train/train@ce_clip/*/step-*.pt"))) == 1
    assert not (workspace / "store/models/ce_clip").exists()


def test_only_two_checkpoints_are_kept_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "stage" / "abc"
    for step in (3, 6, 9):
        checkpoint.save(folder, step, "abc", {"value": torch.tensor(step)})
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000006.pt", "step-00000009.pt"]
    newest = folder / "step-00000009.pt"
    newest.write_bytes(newest.read_bytes()[:-200])
    state = checkpoint.latest(folder, "abc")
    assert state is not None
    assert state["step"] == 6
    assert state["value"].item() == 6


def test_a_checkpoint_of_other_settings_or_inputs_is_not_resumed(tmp_path: Path) -> None:
    old, new = tmp_path / "stage" / "old", tmp_path / "stage" / "new"
    checkpoint.save(old, 3, "old", {})
    assert checkpoint.latest(new, "new") is None
    assert not old.exists()


class Reached(Exception):
    """The trainer was called; carries the binding."""


def test_the_binding_covers_settings_and_every_input(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def note(*_: object, binding: str, **__: object) -> None:
        raise Reached(binding)

    monkeypatch.setattr(trainer, "fit", note)

    def binding() -> str:
        with pytest.raises(Reached) as reached:
            train.main(["ce_clip"])
        assert not list(Path("store/models").glob(".*partial"))
        return str(reached.value)

    def rewrite(path: str, column: str) -> None:
        table = pd.read_parquet(path)
        table[column] = table[column].str.replace("red", "crimson")
        table.to_parquet(path)

    seen = [binding()]
    assert binding() == seen[0]
    for change in (
        lambda: tiny.change_params(workspace, "starter.trainer", lr=1e-3),
        lambda: tiny.change_params(workspace, "starter.methods.ce_clip", alpha=0.5),
        lambda: rewrite("store/dataset/products.parquet", "title"),
        lambda: rewrite("store/negatives/negatives.parquet", "negative"),
        lambda: Path("store/models/base/weights.safetensors").write_bytes(_moved_weights()),
    ):
        change()
        seen.append(binding())
    assert len(set(seen)) == 6


def _moved_weights() -> bytes:
    state = safetensors.torch.load_file("store/models/base/weights.safetensors")
    return safetensors.torch.save({**state, "logit_scale": state["logit_scale"] + 0.1})
