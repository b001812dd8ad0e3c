"""STAGE  Train one method; a run that was stopped or killed goes on where it was.

python -m training.train ce_clip
torchrun --nproc-per-node 2 -m training.train ce_clip      (several devices, or processes, of one machine)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from data import record, stage
from data.params import PARAMS, UserError, canonical_hash, load, strict
from training import checkpoint, distributed, trainer
from training.config import TrainerConfig
from training.encoder import load_encoder
from training.journal import write_history
from training.methods import METHODS
from training.task import BASE, Task
from training.trainer import Fitted

MODELS = Path("store/models")
VALIDATION = "validation.jsonl"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a training's record and checkpoint binding say of its configuration."""

    method: str
    trainer: TrainerConfig
    config: Any


def read_settings(name: str) -> Settings:
    """The settings of a method in the present preset: its own `trainer` block goes over the preset's."""
    content = load()
    preset = content.get("preset", "starter")
    where = f"{PARAMS}: {preset}.methods.{name}"
    try:
        shared, own = content[preset]["trainer"], content[preset]["methods"][name] or {}
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: not found ({error}). Restore the file with `git checkout {PARAMS}`.") from None
    over = own.get("trainer", {})
    strict(TrainerConfig, over, f"{where}.trainer")
    return Settings(
        name, strict(TrainerConfig, {**shared, **over}, f"{PARAMS}: {preset}.trainer"),
        strict(METHODS[name].Config, {key: value for key, value in own.items() if key != "trainer"}, where),
    )  # fmt: skip


def build(args: argparse.Namespace) -> None:
    """Make `store/models/<method>`. Of several processes the first writes, the others compute."""
    method, settings = METHODS[args.method], read_settings(args.method)
    joined = distributed.start()
    try:
        if distributed.rank() == 0:
            _first(method, settings, args)
        elif distributed.agreed(False):
            fit(method, settings)
    finally:
        if joined:
            distributed.stop()


def _first(method: type[Task], settings: Settings, args: argparse.Namespace) -> None:
    with stage.run(
        method.stage, kind="model", command=f"python -m training.train {args.method}", out=MODELS / args.method,
        inputs=list(method.inputs), parameters=settings, seeds={"trainer": settings.trainer.seed}, force=args.force,
    ) as run:  # fmt: skip
        if not distributed.agreed(not run.up_to_date):
            return
        begun = time.monotonic()
        task, fitted = fit(method, settings)
        run.facts(training_seconds=round(time.monotonic() - begun, 2), device=str(task.encoder.logit_scale.device))
        task.cpu().save(run.out)
        _report(run, task, settings, fitted)
    checkpoint.clear(trainer.RUNS / method.stage)


def fit(method: type[Task], settings: Settings) -> tuple[Task, Fitted]:
    """Train a method from its start, or from where it was stopped."""
    trainer.prepare(settings.trainer)
    task = method.build(settings.config, load_encoder(BASE) if BASE in method.inputs else None)
    source = task.source(settings.trainer, method.stage)
    if distributed.rank() == 0:
        stage.log(f"[{method.stage}] {source.steps} steps of {settings.trainer.batch}")
    binding = canonical_hash({"settings": settings, "inputs": [record.describe_input(p) for p in method.inputs]})
    return task, trainer.fit(task, source, settings.trainer, name=method.stage, binding=binding)


def _report(run: stage.Run, task: Task, settings: Settings, fitted: Fitted) -> None:
    """The curve, the validation numbers beside base's, and the check that it learnt."""
    history = fitted.history
    title = f"{settings.method}: mean loss per {settings.trainer.log_every} steps"
    run.picture("Loss", write_history(run.out, history, title))
    if fitted.validations:
        lines = "".join(json.dumps(line) + "\n" for line in fitted.validations)
        (run.out / VALIDATION).write_text(lines, encoding="utf-8")
        run.table("Validation while training", fitted.validations)
    numbers = task.validate()
    export = task.export_spec()
    run.summary(
        method=settings.method, steps=history[-1]["step"], loss_first=history[0]["loss"], loss_last=history[-1]["loss"],
        endpoints=export.endpoints, functions=[*export.functions, *export.modules], **numbers,
    )  # fmt: skip
    before = record.read(BASE).summary if BASE in type(task).inputs else {}
    run.table("Validation", [
        {"metric": key, **({"base": before[key]} if key in before else {}), settings.method: value}
        for key, value in numbers.items()
    ])  # fmt: skip
    task.report(run)
    falls = history[-1]["loss"] < history[0]["loss"]
    run.check("loss_falls", falls, severity="critical", description="The last interval's loss is below the first's.")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help=f"one of: {', '.join(METHODS)}")


def checked(args: argparse.Namespace) -> None:
    """`build`, after the method's name is known to be one."""
    if args.method not in METHODS:
        raise UserError(f"method `{args.method}` is unknown; choose one of: {', '.join(METHODS)}.")
    build(args)


def main(argv: list[str] | None = None) -> int:
    return stage.main(checked, description=__doc__, argv=argv, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
