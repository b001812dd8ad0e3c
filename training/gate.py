"""Judge a method against the champion of its endpoint: pass, fail or inconclusive, by paired statistics.

The champion is the model promoted last, or `base` before the first promotion; it is looked up when the gate runs.
Reads store/evaluations and store/suites; writes store/verdicts/METHOD: verdict.json, verdict.md, plots, and
changed_sides.csv. The verdict holds for exactly the model, champion and suites whose record ids it names. Each such
judgement is an attempt at the champion, counted in runs/gate/attempts.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import record, stage
from data.landings import of_dataset
from data.params import UserError, section
from training import card, verdict_page
from training.attempts import Attempt
from training.benchmarks import of_endpoint, sat_for
from training.champion import BASE, current, endpoint_of
from training.evaluate import DATASET, EVALUATIONS, MODELS, OUTCOMES, SUITES, evaluate_model
from training.outcomes import VERSION
from training.paired import demand_recorded, demand_sound, read_outcomes
from training.verdict import GateConfig, Judgement, Rule, judge

VERDICTS = Path("store/verdicts")
VERDICT, PAGE = "verdict.json", "verdict.md"
CACHE = Path("runs/cache/evaluations")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Outcomes of one model with the file they are in, and the records of the model and the suites they come from.

    `made` is the evaluation's own record; None for a champion that the gate scored itself.
    """

    model_record: str
    suites_record: str
    outcomes: pa.Table
    path: Path
    made: record.Record | None = None

    def demand_sound(self, endpoint: str) -> None:
        """What the gate compares is complete, sound and as recorded. Raises `UserError` naming file and items."""
        demand_sound(self.outcomes, self.path, of_endpoint(endpoint), SUITES)
        if self.made is not None:
            demand_recorded(self.outcomes, self.path, self.made)


@dataclasses.dataclass(frozen=True)
class Opponent:
    """Whom the challenger meets: `kind` is base or champion; `folder` holds a champion's model, none for base."""

    kind: str
    model_record: str
    folder: Path | None


def read_evaluation(model: str) -> Evaluation:
    """The evaluation of store/models/MODEL. Raises `UserError` if it is absent, changed or of unrecorded origin."""
    folder = EVALUATIONS / model
    made, path = record.verify(folder), folder / OUTCOMES
    origin = {item["path"]: item["record"] for item in made.inputs}
    model_record, suites_record = origin.get((MODELS / model).as_posix()), origin.get(SUITES.as_posix())
    if not model_record or not suites_record:
        raise UserError(
            f"{folder}: its record does not name the model and the suites. Run `dvc repro -f evaluate@{model}`."
        )
    return Evaluation(model_record, suites_record, read_outcomes(path), path, made)


def opponent_of(endpoint: str, base: Evaluation) -> Opponent:
    """The present champion of the endpoint, or the base model while there is none."""
    champion = current(endpoint)
    if champion is None:
        return Opponent(BASE, base.model_record, None)
    return Opponent("champion", champion.model_record, champion.folder)


def build(args: argparse.Namespace) -> None:
    endpoint = endpoint_of(args.method)
    challenger, base = read_evaluation(args.method), read_evaluation(BASE)
    opponent = opponent_of(endpoint, base)
    attempt = Attempt(
        endpoint=endpoint, method=args.method, champion=opponent.model_record, model=challenger.model_record,
        suites=challenger.suites_record,
    )  # fmt: skip
    config = section(GateConfig, "gate").rule(endpoint, attempt.number)
    with stage.run(
        f"gate@{args.method}", kind="verdict", command=f"python -m training.gate {args.method}",
        out=VERDICTS / args.method, inputs=[SUITES, EVALUATIONS / BASE, EVALUATIONS / args.method, DATASET],
        parameters={"gate": config, "champion": {"kind": opponent.kind, "model_record": opponent.model_record}},
        seeds={"bootstrap": config.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        _demand_same_suites({args.method: challenger, BASE: base})
        champion = _outcomes_of(opponent, endpoint, [challenger, base])
        for evaluation in (challenger, champion):
            evaluation.demand_sound(endpoint)
        judgement = judge(challenger.outcomes, champion.outcomes, config)
        if challenger.model_record == opponent.model_record:
            judgement = _already_champion(judgement)
        else:
            attempt.note()
        facts = _facts(args.method, endpoint, opponent, challenger, judgement)
        _write(run, judgement, facts, config)
        _page(run, judgement, facts, config, challenger.outcomes, champion.outcomes)
        _report(run, judgement, facts, config)


def _demand_same_suites(evaluations: dict[str, Evaluation]) -> None:
    """Recalls over another pool of distractors, or accuracies over other items, must not be compared."""
    suites = record.verify(SUITES).id
    for name, evaluation in evaluations.items():
        if evaluation.suites_record != suites:
            raise UserError(
                f"{EVALUATIONS / name}: made with suites {evaluation.suites_record[:12]}, but {SUITES} is now "
                f"{suites[:12]}. Run `dvc repro evaluate@{name}`."
            )


def _outcomes_of(opponent: Opponent, endpoint: str, at_hand: list[Evaluation]) -> Evaluation:
    """The opponent's outcomes on the present suites: already evaluated, cached, or evaluated now."""
    for evaluation in at_hand:
        if evaluation.model_record == opponent.model_record:
            return evaluation
    assert opponent.folder is not None, "base is always at hand"
    suites = at_hand[0].suites_record
    path = CACHE / f"{opponent.model_record[:32]}-{suites[:32]}-{endpoint}-{VERSION}.parquet"
    if not _as_written(path):
        record.verify(opponent.folder)
        stage.log(f"[gate] the champion {opponent.model_record[:12]} has not sat these suites yet; scoring it now")
        outcomes = evaluate_model(opponent.folder, SUITES, DATASET, sat_for(endpoint))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        pq.write_table(outcomes, partial)
        record.write_atomically(_stated(path), record.hash_file(partial) + "\n")
        partial.replace(path)
    return Evaluation(opponent.model_record, suites, read_outcomes(path), path)


def _as_written(path: Path) -> bool:
    """Whether a cached file is there, and neither cut off by a full disk nor changed since."""
    stated = _stated(path)
    return path.is_file() and stated.is_file() and stated.read_text().strip() == record.hash_file(path)


def _stated(path: Path) -> Path:
    """Where the hash of a cached file is written."""
    return path.with_suffix(".sha256")


def _already_champion(judgement: Judgement) -> Judgement:
    """No number of items separates a model from itself, and promoting it would change nothing."""
    reason = "is already the champion of its endpoint, so there is nothing to decide"
    return dataclasses.replace(judgement, verdict="inconclusive", reason=reason, needs_more_items=None)


def _facts(
    method: str, endpoint: str, opponent: Opponent, challenger: Evaluation, judgement: Judgement
) -> dict[str, Any]:
    suites = record.read(SUITES)
    whom = "the base model" if opponent.kind == BASE else f"the champion {opponent.model_record[:12]}"
    return {
        "method": method, "endpoint": endpoint, "model_record": challenger.model_record,
        "champion_kind": opponent.kind, "champion_record": opponent.model_record,
        "suites_record": suites.id,
        "suites": {item["path"]: item["hash"] for item in suites.outputs if item["path"].endswith(".parquet")},
        "sentence": f"Against {whom}, {method} {judgement.reason}.", "landings": of_dataset(DATASET),
    }  # fmt: skip


def _write(run: stage.Run, judgement: Judgement, facts: dict[str, Any], config: Rule) -> None:
    content = {
        "method": facts["method"], "endpoint": facts["endpoint"], "model_record": facts["model_record"],
        "champion": {"kind": facts["champion_kind"], "model_record": facts["champion_record"]},
        "suites_record": facts["suites_record"], "suites": facts["suites"],
        "verdict": judgement.verdict, "needs_more_items": judgement.needs_more_items, "reason": facts["sentence"],
        "benchmarks": [dataclasses.asdict(c) for c in judgement.comparisons],
        "gate": dataclasses.asdict(config),
        "attempt": {"number": config.attempt, "level": config.level, "confidence": config.confidence,
                    "lucky": config.lucky, "lucky_unspent": config.lucky_unspent},
    }  # fmt: skip
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (run.out / VERDICT).write_text(text, encoding="utf-8")


def _page(
    run: stage.Run, judgement: Judgement, facts: dict[str, Any], config: Rule, ours: pa.Table, theirs: pa.Table
) -> None:
    """verdict.md, its pictures, changed_sides.csv, and the model card."""
    found = verdict_page.changes(judgement, ours, theirs, SUITES)
    verdict_page.write_csv(found, run.out / "changed_sides.csv")
    verdict_page.forest(judgement, facts["method"], facts["champion_kind"], run.out / "intervals.png")
    run.picture("Differences with intervals", run.out / "intervals.png")
    if verdict_page.changed_page(found, DATASET / "images.parquet", run.out / "changed.png"):
        run.picture("Items that changed sides", run.out / "changed.png")
    (run.out / PAGE).write_text(verdict_page.markdown(judgement, found, facts, config), encoding="utf-8")
    card.write_card(run, judgement, facts, config, found, ours, theirs)
    run.table("Comparisons", verdict_page.comparison_rows(judgement))
    run.table("Items that changed sides", verdict_page.slice_rows(judgement, found))
    for c in judgement.comparisons:
        lost = [change.item["item_id"] for change in found if change.comparison == c and not change.gained]
        run.check(
            f"{c.name}_{c.metric}", c.verdict == "pass", severity="critical" if c.verdict == "fail" else "warning",
            description=f"{c.label}: not worse by more than {100 * c.margin:g} points"
            + (", and better" if c.name == config.primary else ""),
            count=c.lost, examples=lost, difference=c.difference, low=c.low, high=c.high, p=c.p, verdict=c.verdict,
        )  # fmt: skip


def _report(run: stage.Run, judgement: Judgement, facts: dict[str, Any], config: Rule) -> None:
    run.summary(verdict=judgement.verdict, needs_more_items=judgement.needs_more_items, champion=facts["champion_kind"],
                attempt=config.attempt)  # fmt: skip
    for c in judgement.comparisons:
        run.summary(**{f"{c.name}/{c.metric}": round(c.difference, 6)})
        points = f"{100 * c.difference:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f})"
        run.log(f"{c.label}: {100 * c.challenger:.1f} % against {100 * c.champion:.1f} %, {points}: {c.verdict}")
    run.check(
        "verdict", judgement.verdict == "pass", severity="critical",
        description=facts["sentence"], verdict=judgement.verdict, needs_more_items=judgement.needs_more_items,
        primary=config.primary, model_record=facts["model_record"], champion_record=facts["champion_record"],
    )  # fmt: skip
    run.log(
        f"attempt {config.attempt} of {facts['method']} at this champion, judged with {100 * config.confidence:.4g} % "
        f"intervals: a model no better passes in any of them with a chance of {100 * config.lucky:.2g} % at most"
    )
    run.log(f"{judgement.verdict.upper()}. {facts['sentence']}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", help="the challenger: clip, ce_clip, lincir, cma_clip, …")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv, arguments=_arguments)


if __name__ == "__main__":
    sys.exit(main())
