"""Score a model on the benchmarks of its endpoint and keep the outcome of each item; `base` sits all of them.

Reads store/models/MODEL, store/suites and store/dataset; writes store/evaluations/MODEL: outcomes.parquet (what every
metric and verdict is computed from), metrics.json with 95 % intervals, and pages of examples.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from training.benchmarks import BENCHMARKS, sat_for
from training.champion import BASE, endpoint_of
from training.examiner import Examiner
from training.outcomes import Benchmark, Examinee, cells, column
from training.plots import Line, intervals
from training.ranking import TIE
from training.statistics import SEED, estimate

DATASET, SUITES = Path("store/dataset"), Path("store/suites")
MODELS, EVALUATIONS = Path("store/models"), Path("store/evaluations")
OUTCOMES, METRICS = "outcomes.parquet", "metrics.json"
MOST_SLICES = 20  # of one benchmark's metrics: more have a table of their own and are not in the plot

Metrics = dict[str, dict[str, dict[str, float]]]


def exams(model: str) -> dict[str, Benchmark]:
    """The benchmarks that a model sits: those of the endpoint it competes for, and `base` all of them."""
    return BENCHMARKS if model == BASE else sat_for(endpoint_of(model))


def evaluate_model(
    model_folder: Path, suites_folder: Path, dataset_folder: Path, benchmarks: Mapping[str, Benchmark]
) -> pa.Table:
    """Outcomes (`training.outcomes.SCHEMA`) of a model on `benchmarks`. Raises `UserError`, never gives half."""
    return score_all(Examiner(model_folder, dataset_folder), suites_folder, benchmarks)


def score_all(examinee: Examinee, suites: Path, benchmarks: Mapping[str, Benchmark] = BENCHMARKS) -> pa.Table:
    """The outcomes of every benchmark, one below the other."""
    suite_items = {name: benchmark.items(suites) for name, benchmark in benchmarks.items()}
    return pa.concat_tables(
        [_timed(benchmarks[name], items, examinee) for name, items in suite_items.items()]
    ).combine_chunks()


def _timed(benchmark: Benchmark, items: pa.Table, examinee: Examinee) -> pa.Table:
    started = time.monotonic()
    outcomes = benchmark.score(items, examinee)
    stage.log(f"[{benchmark.name}] {items.num_rows:,} items in {time.monotonic() - started:.1f} s")
    return outcomes


def metrics_of(outcomes: pa.Table) -> Metrics:
    """{benchmark: {metric: {value, low, high, n}}}; `metric/slice` for the slices of a metric that has several."""
    found: Metrics = {}
    for (benchmark, metric), cell in cells(outcomes).items():
        values, units = column(cell, "outcome"), column(cell, "unit")
        names = column(cell, "slice")
        block = found.setdefault(benchmark, {})
        block[metric] = _numbers(values, units)
        for name in sorted(set(names)) if len(set(names)) > 1 else ():
            block[f"{metric}/{name}"] = _numbers(values[names == name], units[names == name])
    for name, block in found.items():
        if computed := BENCHMARKS[name].computed:
            block |= computed(outcomes)
    return found


def _numbers(values: Any, units: Any) -> dict[str, float]:
    e = estimate(values, units, (0.0, 1.0))
    return {"value": round(e.value, 6), "low": round(e.low, 6), "high": round(e.high, 6), "n": e.n}


def build(args: argparse.Namespace) -> None:
    model = MODELS / args.model
    with stage.run(
        f"evaluate@{args.model}", kind="evaluation", command=f"python -m training.evaluate {args.model}",
        out=EVALUATIONS / args.model, inputs=[DATASET, SUITES, model], parameters={}, seeds={"bootstrap": SEED},
        force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        started = time.monotonic()
        examiner = Examiner(model, DATASET)
        outcomes = score_all(examiner, SUITES, _asked(run, args.model))
        seconds = time.monotonic() - started
        run.facts(
            scoring_seconds=round(seconds, 2), outcomes_per_second=round(outcomes.num_rows / seconds, 1),
            device=examiner.device,
        )  # fmt: skip
        metrics = metrics_of(outcomes)
        pq.write_table(outcomes, run.out / OUTCOMES)
        (run.out / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        _report(run, args.model, metrics, outcomes)
        _pages(run, outcomes, examiner)


def _asked(run: stage.Run, model: str) -> dict[str, Benchmark]:
    """The model's exams but those that this catalog has no items for, if another endpoint asks or nobody decides."""
    asked = dict(exams(model))
    for name, benchmark in exams(model).items():
        if (model == BASE or not benchmark.gate_metrics) and benchmark.asks_nothing(SUITES):
            loss = f" and {benchmark.endpoint} no champion" if benchmark.gate_metrics else ""
            run.log(f"{name}: the suite has no items, so {model} gets no score{loss}")
            del asked[name]
    return asked


def _report(run: stage.Run, model: str, metrics: Metrics, outcomes: pa.Table) -> None:
    """Numbers, tables and the interval plot of the record."""
    run.summary(**{
        f"{name}/{metric}": block[metric]["value"]
        for name, block in metrics.items() for metric in block if "/" not in metric
    })  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"benchmark": name, "metric": metric, "value %": _percent(cell["value"]),
         "95 % interval": f"{_percent(cell['low'])} to {_percent(cell['high'])}", "items": int(cell["n"])}
        for name, block in metrics.items() for metric, cell in block.items()
    ]  # fmt: skip
    apart = {name for name, block in metrics.items() if _many_slices(block)}
    sliced = {name: [row for row in rows if row["benchmark"] == name and "/" in row["metric"]] for name in apart}
    rows = [row for row in rows if row["benchmark"] not in apart or "/" not in row["metric"]]
    run.table("Metrics", rows)
    for name in sorted(apart):
        run.table(f"{name}, slice by slice", sliced[name])
    if looked := without_looking(outcomes):
        run.table("What one gets without looking", looked)
    _report_ties(run, outcomes)
    for row in rows:
        run.log(f"{row['benchmark']:18} {row['metric']:24} {row['value %']} % ({row['95 % interval']})")
    what = "every benchmark" if model == BASE else f"the benchmarks of {endpoint_of(model)}"
    intervals(
        _lines(metrics), run.out / "metrics.png", title=f"{model} on {what}",
        xlabel="percent of items, with 95 % interval (resampled by product family)",
        legend="dashed tick: what is right without looking (a text-only scorer, the commonest class)",
    )  # fmt: skip
    run.picture("Metrics with intervals", run.out / "metrics.png")


def without_looking(outcomes: pa.Table) -> list[dict[str, Any]]:
    """A row per metric with a control: how much of the model's score the control shares, in percent of all items."""
    held, rows = cells(outcomes), []
    for (name, metric), cell in held.items():
        benchmark = BENCHMARKS[name]
        if benchmark.control is None or metric != benchmark.control.removeprefix("blind_"):
            continue
        model, control = (column(found, "outcome") > 0 for found in (cell, held[name, benchmark.control]))
        rows.append({
            "benchmark": name, "control": benchmark.blind, "model %": _percent(model.mean()),
            "control %": _percent(control.mean()), "both %": _percent((model & control).mean()),
            "model alone %": _percent((model & ~control).mean()),
            "control alone %": _percent((control & ~model).mean()),
            "model, where the control is wrong %": _percent(model[~control].mean()) if (~control).any() else "",
        })  # fmt: skip
    return rows


def _report_ties(run: stage.Run, outcomes: pa.Table) -> None:
    """How often a score difference was none, where outcomes are decided by one."""
    for (name, metric), cell in cells(outcomes).items():
        if BENCHMARKS[name].detail == "difference" and metric in BENCHMARKS[name].gate_metrics:
            ties = int((np.abs(column(cell, "detail")) <= TIE).sum())
            run.summary(**{f"{name}_ties": ties})
            run.log(f"{name}: {ties} ties (a tie is never a success)")


def _lines(metrics: Metrics) -> list[Line]:
    """Every metric as a line; the blind control's as a tick on the line of what it controls."""
    lines = []
    for name, block in metrics.items():
        heading = name.replace("_", " ")
        for metric, cell in block.items():
            if metric.startswith("blind_") or ("/" in metric and _many_slices(block)):
                continue
            control = block.get(f"blind_{metric}")
            value, low, high = (100 * cell[key] for key in ("value", "low", "high"))
            marks = (100 * control["value"],) if control else ()
            note = f"{value:.1f} %   n = {int(cell['n']):,}"
            lines.append(Line(metric, value, low, high, note=note, heading=heading, marks=marks))
            heading = ""
    return lines


def _many_slices(block: Mapping[str, Any]) -> bool:
    return sum("/" in metric for metric in block) > MOST_SLICES


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _pages(run: stage.Run, outcomes: pa.Table, examinee: Examinee) -> None:
    """A page of examples of each benchmark that the model sat."""
    from training.examples import PAGES

    sat = {name for name, _ in cells(outcomes)}
    for name, (title, draw) in PAGES.items():
        if name in sat:
            path = run.out / f"{name}.png"
            draw(SUITES, DATASET, outcomes, examinee, path)
            run.picture(title, path)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a folder under store/models: base, clip, ce_clip, …")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv, arguments=_arguments)


if __name__ == "__main__":
    sys.exit(main())
