"""What every method must keep to: it learns, resumes bit by bit, and does not depend on how its batch is divided."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor

from serving import towers
from tests.training import ranks, tiny
from training import checkpoint, steps, trainer
from training.journal import METRICS
from training.methods import METHODS, load_task
from training.task import METHOD, ExportFunction, Task
from training.train import MODELS
from training.train import main as train

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(METHODS)
every_method = pytest.mark.parametrize("name", NAMES)


def first_step(name: str, **changes: object) -> tuple[Task, dict[str, Tensor]]:
    """A task with the gradient of its first step, and the step's parts."""
    task, settings = ranks.build(name, **changes)
    source = task.source(settings.trainer, "unit")
    run = trainer.Run(task, source, settings.trainer, "unit", "b" * 64)
    task.on_epoch(0)
    task.before_step(0, 0.0)
    torch.manual_seed(3)
    parts, _ = steps.backward(task, [trainer.to_device(b, run.device) for b in source.batches(0)], 0)
    source.close()
    return task, parts


@every_method
def test_the_loss_falls_and_the_model_folder_is_whole(workspace: Path, name: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    own = params["starter"]["methods"][name].get("trainer", {})
    faster = {"epochs": 12, "lr": 1e-3, "head_lr": 1e-2, "log_every": 4}
    tiny.change_params(workspace, f"starter.methods.{name}", trainer={**own, **faster})
    assert train([name]) == 0
    folder = MODELS / name
    losses = [json.loads(line)["loss"] for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    assert losses[-1] < losses[0], losses
    if METHODS[name].saved:
        task = load_task(folder)
        assert not task.training
        assert type(task) is METHODS[name]
    else:
        assert not (folder / METHOD).exists()


@every_method
def test_a_killed_run_goes_on_bit_by_bit(workspace: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, log, and all further state: queues, thresholds, teachers, averages, what the batches depend on."""
    settings = {"epochs": 3, "checkpoint_every": 2, "log_every": 1, "ema": 0.9, "precision": "bf16"}
    final: list[dict[str, Tensor]] = []
    finish = trainer.Run.finish

    def note(run: trainer.Run) -> trainer.Fitted:
        final.append({**run.task.extra_state(), **{f"source {k}": v for k, v in run.source.state().items()}})
        return finish(run)

    monkeypatch.setattr(trainer.Run, "finish", note)
    whole, history = ranks.fit(name, "whole", **settings)
    at = random.Random().randrange(2, len(history))
    step = trainer.Run.step

    def killed(run: trainer.Run, number: int) -> None:
        step(run, number)
        if number == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Run, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            ranks.fit(name, "broken", **settings)
    torch.manual_seed(random.Random().randrange(1 << 30))  # nothing may hang on the state of this process
    resumed, again = ranks.fit(name, "broken", **settings)
    assert again == history, f"killed at step {at}"
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), f"{key}, killed at step {at}"
    assert final[0].keys() == final[1].keys()
    for key, value in final[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(final[1][key])), f"{key}, killed at step {at}"
    checkpoint.clear(Path("runs/train"))


@every_method
def test_micro_batches_give_the_gradient_of_the_large_batch(workspace: Path, name: str) -> None:
    whole, parts = first_step(name)
    pieces, again = first_step(name, accumulate=4)
    for key, value in parts.items():
        torch.testing.assert_close(again[key], value, atol=1e-5, rtol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
    moved = 0
    for (key, a), b in zip(whole.named_parameters(), pieces.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=2e-6, rtol=1e-3, msg=lambda m, k=key: f"{k}: {m}")
            moved += bool(a.grad.any())
    assert moved


def test_two_processes_learn_what_one_learns(workspace: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, folder in ((two, "two"), ([sys.executable], "one")):
        (tmp_path / folder).mkdir()
        ran = subprocess.run(
            [*command, "-m", "tests.training.ranks", str(tmp_path / folder), *NAMES],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
    for name in NAMES:
        one, two_ = (torch.load(tmp_path / folder / f"{name}.pt", weights_only=True) for folder in ("one", "two"))
        np.testing.assert_allclose(two_["loss"], one["loss"], rtol=1e-4, atol=1e-5, err_msg=name)
        for key, value in one["learnt"].items():
            torch.testing.assert_close(
                two_["learnt"][key], value, atol=1e-5, rtol=1e-3, msg=lambda m, n=name, k=key: f"{n}: {k}: {m}"
            )


@every_method
def test_bf16_stays_near_fp32(workspace: Path, name: str) -> None:
    _, exact = first_step(name)
    _, rough = first_step(name, precision="bf16")
    assert torch.isfinite(rough["loss"])
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.05, abs=0.02)


@every_method
def test_what_a_method_serves_is_the_same_in_onnx(workspace: Path, tmp_path: Path, name: str) -> None:
    task, _ = ranks.build(name)
    spec = task.eval().export_spec()
    assert spec.endpoints
    assert spec.functions or spec.modules
    for label, function in spec.modules.items():
        compare(function, tmp_path / f"{label}.onnx")
    if spec.functions:
        compare_towers(task, tmp_path)


def compare_towers(task: Task, folder: Path) -> None:
    """What serving writes of the encoder, with another batch than the one it was written with."""
    towers.write(folder, task.encoder)
    pixels = torch.randint(256, (5, *task.encoder.config.image_size, 3), dtype=torch.uint8)
    ids, mask = task.encoder.tokenize(["red shirts for men", "blue", "green bags", "brand 7 yellow watches", "shoes"])
    with torch.inference_mode():
        images = task.encoder.encode_image(pixels.permute(0, 3, 1, 2)).numpy()
        texts = task.encoder.encode_text(ids, mask).numpy()
    for path, inputs, wanted in (
        (towers.IMAGE, {"pixels": pixels}, images), (towers.TEXT, {"ids": ids, "mask": mask}, texts),
    ):  # fmt: skip
        session = onnxruntime.InferenceSession(str(folder / path))
        found = session.run(None, {key: value.numpy() for key, value in inputs.items()})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-4, err_msg=path)


def free(function: ExportFunction) -> tuple[dict[int, torch.export.Dim], ...]:
    """The axes that may have any length; axes of one name are one dimension."""
    names = {name for axes in function.axes.values() for name in axes.values()}
    dims = {name: torch.export.Dim(name, min=1, max=1024) for name in names}
    return tuple({axis: dims[n] for axis, n in function.axes.get(key, {}).items()} for key in function.inputs)


def compare(function: ExportFunction, path: Path) -> None:
    """Export, run in ONNX Runtime on the example and on more of it, and compare."""
    program = torch.onnx.export(
        function.module.eval(), tuple(function.inputs.values()), dynamo=True, input_names=list(function.inputs),
        output_names=list(function.outputs), dynamic_shapes=free(function), verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(str(path))
    doubled = {key: torch.cat([value, value.flip(0)]) for key, value in function.inputs.items()}
    for inputs in (function.inputs, doubled):
        with torch.inference_mode():
            wanted = function.module(*inputs.values())
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        for ours, theirs, output in zip(wanted, found, function.outputs, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-4, rtol=1e-4, err_msg=output)
