"""Fine-tune a trained fused model (simla, syncmask) for a task with a head, and score it on the task's benchmark.

python -m training.finetune simla nlvr               text_assignment, nlvr2, nlvr, snli_ve, fashiongen_category, …
python -m training.finetune simla nlvr --folder F    benchmarks below F, not below FITTINGROOM_BENCHMARKS

Reads store/models/MODEL, writes store/finetuned/MODEL-TASK; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from data import record, stage
from data.params import UserError, canonical_hash
from training import checkpoint, trainer
from training.fused.heads.answers import FITTED, Answers, HeadExam, folder_of, write_fitted
from training.fused.heads.assignment import Assignment
from training.fused.heads.begin import begin, frozen
from training.fused.heads.examples import Examples, ExampleSource, Held, Shelf
from training.fused.heads.head import Head
from training.fused.heads.recipes import RECIPES, Recipe, Tuning, read_tuning
from training.fused.heads.tuned import HEAD
from training.journal import write_history
from training.methods import METHODS
from training.official import OFFICIAL, files
from training.outcomes import cells, column
from training.train import MODELS
from training.trainer import Fitted

OUTCOMES = "outcomes.parquet"
HELD_OUT, FOLDS = 0, 5  # own split: every fifth group is scored, the others are fitted on
SURE = 0.05  # p of the test against always giving the commonest answer


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a fine-tuning's record and checkpoints say of its configuration."""

    model: str
    task: str
    tuning: Tuning


@dataclasses.dataclass(frozen=True)
class Parts:
    """Items that a head is fitted on and items that it is scored on; `own` where both are of the scored split."""

    fitted: pa.Table
    scored: pa.Table
    own: bool


def build(args: argparse.Namespace) -> None:
    """Make `store/finetuned/MODEL-TASK`."""
    if args.task not in RECIPES:
        raise UserError(f"task `{args.task}` is unknown; choose one of: {', '.join(RECIPES)}.")
    root = Path(args.folder) if args.folder else files.root()
    recipe, settings = RECIPES[args.task], Settings(args.model, args.task, read_tuning(args.task))
    name = f"finetune@{args.model}-{args.task}"
    inputs = _inputs(settings, recipe, root)
    with stage.run(
        name, kind="model", command=f"python -m training.finetune {args.model} {args.task}",
        out=folder_of(args.model, args.task), inputs=inputs, parameters=settings,
        seeds={"trainer": settings.tuning.trainer.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        if recipe.way:
            way = importlib.import_module(f"training.fused.{recipe.way}")
            way.tune(run, settings, MODELS / args.model, root, _binding(settings, inputs))
        else:
            _tune(run, settings, recipe, root, inputs)
    checkpoint.clear(trainer.RUNS / name)


def _tune(run: stage.Run, settings: Settings, recipe: Recipe, root: Path, inputs: Sequence[Path]) -> None:
    """A head into `run.out`, and its score."""
    parts = split(recipe, root)
    begun = time.monotonic()
    head, fitted = fit(settings, recipe, parts, root, run.stage, inputs)
    run.facts(training_seconds=round(time.monotonic() - begun, 2), device=str(head.encoder.logit_scale.device))
    head.cpu().save(run.out)
    _report(run, head, fitted)
    if parts is not None:
        score(run, str(recipe.benchmark), parts, root)


def split(recipe: Recipe, root: Path) -> Parts | None:
    """The items of a recipe's benchmark; None for a pre-step. Raises `UserError` for what is not installed."""
    if recipe.benchmark is None:
        return None
    official = OFFICIAL[recipe.benchmark]
    files.check(official, root / official.name)
    scored, training = official.load(root / official.name), recipe.fit_items(root)
    if training is not None:
        return Parts(training, scored, own=False)
    if not recipe.own_split:
        raise UserError(f"{root / official.name}: no training part of {official.title} to fit on. {official.source}")
    _, number = np.unique(scored["group"].to_numpy(), return_inverse=True)
    held = pa.array(number % FOLDS == HELD_OUT)
    return Parts(scored.filter(pa.compute.invert(held)), scored.filter(held), own=True)


def fit(
    settings: Settings, recipe: Recipe, parts: Parts | None, root: Path, name: str, inputs: Sequence[Path]
) -> tuple[Head, Fitted]:
    """The head after its training, taken up where it was stopped."""
    tuning = settings.tuning
    classes = recipe.classes or tuple(sorted(set(parts.fitted["label"].to_pylist()) if parts else ()))
    after = folder_of(settings.model, tuning.after or "")
    head = begin(MODELS / settings.model, settings.task, recipe, tuning, classes, after)
    config = dataclasses.replace(tuning.trainer, frozen=frozen(head, tuning))
    trainer.prepare(config)
    if parts is not None:
        examples = Examples.of(parts.fitted, classes)
        head.batches = ExampleSource(examples, head.encoder, config, root)
        if config.validate_every:
            known = parts.scored.filter(pa.compute.is_in(parts.scored["label"], pa.array(classes)))
            head.held = Held(Examples.of(known, classes), Shelf(root, head.encoder.config.image_size))
    source = head.source(config, name)
    stage.log(f"[{name}] {source.steps} steps of {config.batch}")
    return head, trainer.fit(head, source, config, name=name, binding=_binding(settings, inputs))


def score(run: stage.Run, benchmark: str, parts: Parts, root: Path) -> None:
    """Outcomes, metrics, and whether the head does better than the commonest answer."""
    if parts.own:
        write_fitted(run.out / FITTED, parts.fitted)
    answers = Answers(run.out, root)
    outcomes = OFFICIAL[benchmark].score(parts.scored, HeadExam(answers))
    pq.write_table(outcomes, run.out / OUTCOMES)
    metrics = {name: round(value, 2) for name, value in OFFICIAL[benchmark].metrics(outcomes).items()}
    (_, first), cell = next(iter(cells(outcomes).items()))
    commonest, p = beyond_commonest(cell)
    run.table("Score", [{"metric": name, "percent": value} for name, value in metrics.items()])
    run.summary(
        fitted_on=parts.fitted.num_rows, scored_on=parts.scored.num_rows, own_split=parts.own,
        commonest=commonest, p_beyond_commonest=p, **metrics,
    )  # fmt: skip
    run.check(
        "beyond_commonest", p < SURE, severity="warning",
        description=f"{first}: more right than by the commonest answer (t-test over groups, one-sided, p < {SURE}).",
    )  # fmt: skip


def beyond_commonest(accuracy: pa.Table) -> tuple[float, float]:
    """Percent right by always giving the commonest label, and p of the head's being no better.

    `accuracy`: outcomes whose slice is the true label. One-sided t-test of the mean gain per group: items of a group
    share a sentence or a picture, and are no independent draws.
    """
    names, label = np.unique(column(accuracy, "slice").astype(str), return_inverse=True)
    dull = label == np.bincount(label).argmax()
    _, group = np.unique(column(accuracy, "unit"), return_inverse=True)
    gains = np.bincount(group, column(accuracy, "outcome") - dull) / np.bincount(group)
    known = len(names) > 1 and np.ptp(gains) > 0
    p = float(stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue) if known else 1.0
    return round(100 * float(dull.mean()), 2), float(f"{p:.3g}")


def _inputs(settings: Settings, recipe: Recipe, root: Path) -> list[Path]:
    """Files and folders that decide the result; pictures are taken as the annotation files' own."""
    found = [MODELS / settings.model]
    if not found[0].is_dir():
        raise UserError(f"{found[0]}: no such model. Train it first: `python -m training.train {settings.model}`.")
    if settings.model not in METHODS:
        raise UserError(f"model `{settings.model}` is no method's; fine-tune simla or syncmask.")
    if after := settings.tuning.after:
        found.append(folder_of(settings.model, after))
        if not (found[-1] / HEAD).is_file():
            raise UserError(
                f"{found[-1]}: not found, and {settings.task} starts from it. Run `python -m training.finetune "
                f"{settings.model} {after}` first, or set finetune.{settings.task}.after to null in params.yaml."
            )
    if recipe.benchmark is None:
        return [*found, *Assignment.inputs]
    official = OFFICIAL[recipe.benchmark]
    home = root / official.name
    return found + [path for file in official.files if (path := files.find(home, file.path)) is not None]


def _binding(settings: Settings, inputs: Sequence[Path]) -> str:
    """What decides the result, for checkpoints."""
    return canonical_hash({"settings": settings, "inputs": [record.describe_input(path) for path in inputs]})


def _report(run: stage.Run, head: Head, fitted: Fitted) -> None:
    history, settings = fitted.history, head.config
    run.picture("Loss", write_history(run.out, history, f"{settings.method} for {settings.task}: mean loss"))
    run.summary(
        method=settings.method, task=settings.task, classes=len(settings.classes), steps=history[-1]["step"],
        loss_first=history[0]["loss"], loss_last=history[-1]["loss"], **(fitted.validations or [{}])[-1],
        **(head.validate() if isinstance(head, Assignment) else {}),
    )  # fmt: skip
    if fitted.validations:
        run.table("Validation while fine-tuning", fitted.validations)
    falls = history[-1]["loss"] < history[0]["loss"]
    run.check("loss_falls", falls, severity="critical", description="The last interval's loss is below the first's.")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a trained fused model under store/models: simla, syncmask")
    parser.add_argument("task", metavar="TASK", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--folder", metavar="F", help=f"the folder of all benchmarks (default: {files.root()})")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
