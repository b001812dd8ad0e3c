"""What fine-tunings that end in no classifier share: the training run, its record, and the score on their benchmark."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow.parquet as pq

from data import stage
from data.params import UserError
from training import trainer
from training.fused.heads.begin import frozen
from training.fused.heads.recipes import Tuning
from training.journal import write_history
from training.official import files
from training.official.contract import Exam, Official
from training.source import Batches
from training.task import Task

OUTCOMES = "outcomes.parquet"


class Settings(Protocol):
    """Of `training.finetune`: whose model is tuned for what, and how."""

    @property
    def model(self) -> str: ...

    @property
    def task(self) -> str: ...

    @property
    def tuning(self) -> Tuning: ...


def installed(benchmark: Official, root: Path, *training: str) -> Path:
    """The benchmark's folder. Raises `UserError` if its files or those of its training part are not there."""
    folder = root / benchmark.name
    files.check(benchmark, folder)
    for path in training:
        if files.find(folder, path) is None:
            raise UserError(
                f"{folder / path}: not found, and {benchmark.title} is fine-tuned on it. {benchmark.source} Put its "
                f"files into {folder}."
            )
    return folder


def fit(run: stage.Run, task: Task, source: Batches, settings: Settings, binding: str) -> None:
    """Train `task`, or go on where it was stopped; save it into `run.out`, and note how it went."""
    how, name, begun = settings.tuning, f"finetune@{settings.model}-{settings.task}", time.monotonic()
    config = dataclasses.replace(how.trainer, frozen=frozen(cast(Any, task), how))
    trainer.prepare(config)
    stage.log(f"[{name}] {source.steps} steps of {config.batch}")
    history = trainer.fit(task, source, config, name=name, binding=binding).history
    run.facts(
        training_seconds=round(time.monotonic() - begun, 2), device=str(task.encoder.logit_scale.device)
    )  # fmt: skip
    task.cpu().save(run.out)
    first, last = history[0]["loss"], history[-1]["loss"]
    run.picture("Loss", write_history(run.out, history, f"{settings.model} for {settings.task}: mean loss"))
    run.summary(
        method=name_of(task), task=settings.task, steps=history[-1]["step"], loss_first=first, loss_last=last
    )  # fmt: skip
    run.check(
        "loss_falls", last < first, severity="critical", description="The last interval's loss is below the first's."
    )  # fmt: skip


def score(run: stage.Run, benchmark: Official, exam: Exam, root: Path) -> None:
    """Outcomes and metrics of all the benchmark's items."""
    items = benchmark.load(root / benchmark.name)
    outcomes = benchmark.score(items, exam)
    pq.write_table(outcomes, run.out / OUTCOMES)
    metrics = {name: round(value, 2) for name, value in benchmark.metrics(outcomes).items()}
    run.table("Score", [{"metric": name, "percent": value} for name, value in metrics.items()])
    run.summary(scored_on=items.num_rows, **metrics)


def name_of(method: Task) -> str:
    """The method's name: that of its module."""
    return type(method).__module__.rpartition(".")[2]
