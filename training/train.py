"""STAGE  Train one method from the base model; a run that was stopped or killed goes on where it was.

python -m training.train ce_clip
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from data import record, stage
from data.params import UserError, canonical_hash, section
from training import checkpoint, trainer
from training.config import TrainerConfig
from training.encoder import load_encoder, save_encoder
from training.journal import write_history
from training.methods import METHODS
from training.source import NEGATIVES, Features, Pixels, Source, load_products
from training.task import Task
from training.validation import retrieval

DATASET, BASE, MODELS = Path("store/dataset"), Path("store/models/base"), Path("store/models")
HARD = Path("store/negatives")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a training's record and checkpoint binding say of its configuration."""

    method: str
    trainer: TrainerConfig
    config: Any


def build(args: argparse.Namespace) -> None:
    """Make `store/models/<method>`."""
    method = METHODS[args.method]
    settings = Settings(
        args.method, section(TrainerConfig, "{preset}.trainer"),
        section(method.Config, f"{{preset}}.methods.{args.method}"),
    )  # fmt: skip
    name = f"train@{args.method}"
    inputs = [DATASET, HARD, BASE]
    with stage.run(
        name, kind="model", command=f"python -m training.train {args.method}", out=MODELS / args.method, inputs=inputs,
        parameters=settings, seeds={"trainer": settings.trainer.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        train(method, settings, name, run)
    checkpoint.clear(trainer.RUNS / name)


def train(method: type[Task], settings: Settings, name: str, run: stage.Run) -> None:
    """Train, save the encoder and its curve, and compare it with `base` on the validation split."""
    trainer.prepare(settings.trainer)
    task = method.build(settings.config, load_encoder(BASE))
    before = record.read(BASE).summary
    source = make_source(task, settings.trainer, name)
    run.log(f"{len(source.products.row_ids)} products, {source.steps} steps of {settings.trainer.batch}")
    begun = time.monotonic()
    binding = canonical_hash(
        {"settings": settings, "inputs": [record.describe_input(p) for p in (DATASET, HARD, BASE)]}
    )
    history = trainer.fit(task, source, settings.trainer, name=name, binding=binding)
    run.facts(training_seconds=round(time.monotonic() - begun, 2), device=str(task.encoder.logit_scale.device))
    encoder = task.encoders()["model"].cpu()
    save_encoder(run.out, encoder)
    run.picture(
        "Loss", write_history(run.out, history, f"{settings.method}: mean loss per {settings.trainer.log_every} steps")
    )
    numbers = retrieval(encoder, load_products(DATASET, "val"), DATASET)
    export = task.export_spec()
    run.summary(
        method=settings.method, steps=source.steps, loss_first=history[0]["loss"], loss_last=history[-1]["loss"],
        endpoints=export.endpoints, functions=export.functions, **numbers,
    )  # fmt: skip
    run.table("Validation retrieval", [
        {"metric": key, "base": before.get(key), settings.method: value} for key, value in numbers.items()
    ])  # fmt: skip
    falls = history[-1]["loss"] < history[0]["loss"]
    run.check("loss_falls", falls, severity="critical", description="The last interval's loss is below the first's.")


def make_source(task: Task, config: TrainerConfig, name: str) -> Source:
    """Batches of the train split with the keys the method needs."""
    products = load_products(DATASET, "train")
    pictures = (
        Features(task.encoder, DATASET, products.image_keys, name)
        if "image.trunk" in config.frozen
        else Pixels(task.encoder, DATASET, products.image_keys, config.crop)
    )
    negatives = pd.read_parquet(HARD / NEGATIVES) if "negatives" in task.needs else None
    return Source(products, task.encoder, pictures, config, task.needs, negatives)


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
