"""Run official benchmarks: `python -m training.official MODEL [NAME ...]`, all that are installed unless named.

Reads store/models/MODEL and, below FITTINGROOM_BENCHMARKS or --folder, a folder of annotation files per benchmark and
the official pictures. Writes store/official/MODEL/NAME: outcomes.parquet (what every metric is computed from) and
metrics.json; and store/official/MODEL/headlines, all of them in one table and one plot. Nothing is downloaded.
--submit writes what the test servers of the named benchmarks take, to store/official/MODEL/NAME-submission.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import stage
from data.params import UserError
from training.official import OFFICIAL, files, intervals
from training.official.contract import Exam, Official
from training.official.exam import DATASET, CannotSit, ModelExam
from training.official.pairs import BLIND
from training.official.scoring import OFFICIAL as TWIN
from training.outcomes import VERSION
from training.plots import Line
from training.plots import intervals as draw
from training.ranking import TIE
from training.statistics import SEED

MODELS, OUT = Path("store/models"), Path("store/official")
CONTROLS = ("blind ", "text_only_", "text-only ")  # how the metric of a text-only control begins
OUTCOMES, METRICS, HEADLINES = "outcomes.parquet", "metrics.json", "headlines"

Numbers = dict[str, Any]


def build(args: argparse.Namespace) -> None:
    folder = Path(args.folder) if args.folder else files.root()
    if args.list:
        print("\n".join(_columns(listing(folder))))
        return
    if not args.model:
        raise UserError("name a model, a folder under store/models; or give --list to see the benchmarks.")
    exam = functools.cache(lambda: ModelExam(MODELS / args.model, folder))
    if args.submit:
        submit(args.model, args.names, folder, exam, force=args.force)
        return
    refused = []
    for name in _asked(args.names, folder):
        try:
            sit(args.model, OFFICIAL[name], folder, exam, force=args.force)
        except CannotSit as error:
            stage.log(f"[{name}] not scored: {error}")
        except UserError as error:  # the other benchmarks are scored all the same
            stage.log(f"[{name}] error: {error}")
            refused.append(f"{name}: {error}")
    summarise(args.model, force=args.force)
    if refused:
        raise UserError(f"{len(refused)} benchmarks could not be scored. First: {refused[0]}")


def listing(folder: Path) -> list[dict[str, str]]:
    """A row per benchmark: what it tests, whether its files are in `folder`, how many items, where to get them."""
    return [_described(OFFICIAL[name], folder / name) for name in OFFICIAL]


def _described(benchmark: Official, home: Path) -> dict[str, str]:
    absent, items = files.missing(benchmark, home), ""
    if not absent:
        try:
            items = f"{benchmark.load(home).num_rows:,}"
        except UserError as error:
            items = f"cannot be read: {error}"
    return {
        "benchmark": benchmark.name, "title": benchmark.title, "ability": benchmark.ability,
        "installed": "no" if absent else "yes", "items": items, "source": benchmark.source,
    }  # fmt: skip


def _asked(names: Sequence[str], folder: Path) -> list[str]:
    """The benchmarks to score: those named, else all that are installed; a line says where to get the others."""
    if unknown := [name for name in names if name not in OFFICIAL]:
        raise UserError(f"benchmark `{unknown[0]}` is unknown; choose from: {', '.join(OFFICIAL)}.")
    if names:
        return list(dict.fromkeys(names))
    installed = []
    for name, benchmark in OFFICIAL.items():
        if absent := files.missing(benchmark, folder / name):
            stage.log(f"[{name}] not installed ({folder / name / absent[0]} is missing). {benchmark.source}")
        else:
            installed.append(name)
    if not installed:
        raise UserError(f"{folder}: no official benchmark is installed there; `--list` says where to get them.")
    return installed


def sit(model: str, benchmark: Official, folder: Path, exam: Callable[[], ModelExam], *, force: bool = False) -> None:
    """Score a model on one benchmark into OUT/MODEL/NAME. Raises `UserError`; then nothing is written."""
    home = folder / benchmark.name
    files.check(benchmark, home)
    items = benchmark.load(home)
    with stage.run(
        f"official@{model}/{benchmark.name}", kind="official",
        command=f"python -m training.official {model} {benchmark.name}", out=OUT / model / benchmark.name,
        inputs=_inputs(model, benchmark), seeds={"bootstrap": SEED}, force=force,
        parameters={"files": files.check(benchmark, home), "scoring": VERSION},  # `load` may have made one of them
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        started = time.monotonic()
        exam().demand(benchmark)
        outcomes = _scored(benchmark, items, exam())
        run.facts(scoring_seconds=round(time.monotonic() - started, 2))
        found = numbers(benchmark, items, outcomes)
        pq.write_table(outcomes, run.out / OUTCOMES)
        (run.out / METRICS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        _report(run, benchmark, found)


def _inputs(model: str, benchmark: Official) -> list[Path]:
    """The model, its head for this benchmark, and the texts that a control learns from."""
    from training.fused.heads.answers import folder_of  # imports torch, which `--list` does not need

    return [MODELS / model, *(path for path in (folder_of(model, benchmark.name), DATASET) if path.is_dir())]


def submit(model: str, names: Sequence[str], folder: Path, exam: Callable[[], ModelExam], *, force: bool) -> None:
    """Write what the test servers of benchmarks take. Raises `UserError` for one that has none."""
    for name in names or [""]:
        made = OFFICIAL[name].submit if name in OFFICIAL else None
        if made is None:
            able = ", ".join(other for other, benchmark in OFFICIAL.items() if benchmark.submit)
            raise UserError(f"benchmark `{name}` has no test server that takes files; these have: {able}.")
        with stage.run(
            f"official@{model}/{name}-submission", kind="official", out=OUT / model / f"{name}-submission",
            command=f"python -m training.official {model} {name} --submit", inputs=_inputs(model, OFFICIAL[name]),
            parameters={"files": files.check(OFFICIAL[name], folder / name)}, force=force,
        ) as run:  # fmt: skip
            for file, content in {} if run.up_to_date else made(folder / name, exam()).items():
                (run.out / file).write_text(json.dumps(content) + "\n", encoding="utf-8")
                run.log(f"{run.out.with_name(f'{name}-submission') / file}: upload it to the benchmark's server")


def _scored(benchmark: Official, items: pa.Table, exam: Exam) -> pa.Table:
    try:
        return benchmark.score(items, exam).combine_chunks()
    except CannotSit:
        raise
    except UserError as error:
        needs = f" It needs: {benchmark.pictures}." if benchmark.pictures else ""
        raise UserError(f"{benchmark.title}: {error}{needs}") from None


def numbers(benchmark: Official, items: pa.Table, outcomes: pa.Table) -> Numbers:
    """What metrics.json holds: of each metric the percent, the official rule's where it has one, and chance."""
    values = benchmark.metrics(outcomes)
    low, high = intervals.headline(benchmark, outcomes)
    block: dict[str, dict[str, float]] = {
        name: {"value": _rounded(number)} for name, number in values.items() if not name.endswith(TWIN)
    }
    for name, cell in block.items():
        if name + TWIN in values:
            cell["official"] = _rounded(values[name + TWIN])
        if name in benchmark.chance:
            cell["chance"] = _rounded(benchmark.chance[name])
    block[benchmark.headline] |= {"low": _rounded(low), "high": _rounded(high)}
    return {
        "benchmark": benchmark.name, "title": benchmark.title, "ability": benchmark.ability,
        "headline": benchmark.headline, "items": items.num_rows, "groups": len(items["group"].unique()),
        "ties": ties(outcomes), "metrics": block,
    }  # fmt: skip


def ties(outcomes: pa.Table) -> int:
    """Items that a difference of (nearly) 0 decided, or that the official rule for ties decides in another way."""
    frame = outcomes.select(["metric", "item_id", "outcome", "detail"]).to_pandas()
    twin = frame.metric.str.endswith(TWIN)
    near = frame[(frame.detail.abs() <= TIE) & ~frame.metric.str.contains("blind")]
    theirs = frame[twin].assign(metric=frame.metric.str.removesuffix(TWIN))
    both = frame[~twin].merge(theirs, on=["metric", "item_id"], suffixes=("", "_official"))
    apart = both[both.outcome != both.outcome_official]
    return len({*near.item_id, *apart.item_id})


def _report(run: stage.Run, benchmark: Official, found: Numbers) -> None:
    run.summary(items=found["items"], ties=found["ties"], **{k: cell["value"] for k, cell in found["metrics"].items()})
    rows = _rows(found)
    run.table(benchmark.title, rows)
    for line in _columns(rows):
        run.log(line)
    run.log(f"{found['items']:,} items, {found['ties']:,} ties (a tie is never a success)")


def _rows(found: Numbers) -> list[dict[str, str]]:
    """A line per metric for people."""
    return [
        {
            "metric": name, "%": _shown(cell["value"]), "95 % interval": _interval(cell),
            "official rule": _shown(cell.get("official")), "chance": _shown(cell.get("chance")),
        }
        for name, cell in found["metrics"].items()
    ]  # fmt: skip


def summarise(model: str, *, force: bool = False) -> None:
    """The headlines of all benchmarks that a model sat, in one table and a forest plot."""
    sat = [OUT / model / name for name in OFFICIAL if (OUT / model / name / METRICS).is_file()]
    if not sat:
        return
    with stage.run(
        f"official@{model}", kind="official", command=f"python -m training.official {model}",
        out=OUT / model / HEADLINES, inputs=sat, parameters={}, force=force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        found = [json.loads((folder / METRICS).read_text(encoding="utf-8")) for folder in sat]
        cells = [block["metrics"][block["headline"]] for block in found]
        rows = [
            {
                "benchmark": block["title"], "headline": block["headline"], "%": _shown(cell["value"]),
                "95 % interval": _interval(cell), "official rule": _shown(cell.get("official")),
                "chance": _shown(cell.get("chance")), "text alone": _shown(_control(block)),
                "items": f"{block['items']:,}", "ties": f"{block['ties']:,}",
            }
            for block, cell in zip(found, cells, strict=True)
        ]  # fmt: skip
        run.table("Official benchmarks", rows)
        (run.out / METRICS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        picture = run.out / "headlines.png"
        draw(
            [_line(block, cell) for block, cell in zip(found, cells, strict=True)], picture,
            title=f"{model} on official benchmarks", xlabel="percent, with 95 % interval (groups resampled)",
            legend="dashed ticks: chance, and what the texts alone get",
        )  # fmt: skip
        run.picture("Headlines", picture)
        for line in _columns(rows):
            run.log(line)


def _line(block: Numbers, cell: Mapping[str, float]) -> Line:
    marks = tuple(mark for mark in (cell.get("chance"), _control(block)) if mark is not None)
    note = f"{cell['value']:.1f} %   n = {block['items']:,}"
    return Line(
        f"{block['title']}: {block['headline']}", cell["value"], cell["low"], cell["high"], note=note, marks=marks
    )


def _control(block: Numbers) -> float | None:
    """What a model that sees no picture gets of the headline, where the benchmark tells."""
    names = [*(start + block["headline"] for start in CONTROLS), BLIND]
    return next((float(block["metrics"][name]["value"]) for name in names if name in block["metrics"]), None)


def _rounded(number: float) -> float:
    return round(float(number), 4)


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _interval(cell: Mapping[str, float]) -> str:
    return f"{cell['low']:.2f} to {cell['high']:.2f}" if "low" in cell else ""


def _columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows as lines of text with aligned columns under their names."""
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a folder under store/models: base, clip, ce_clip, …")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; all that are installed unless named")
    parser.add_argument("--folder", help="the folder of all benchmarks (or FITTINGROOM_BENCHMARKS; store/benchmarks)")
    parser.add_argument("--submit", action="store_true", help="write files for the test servers instead of scores")
    parser.add_argument("--list", action="store_true", help="print the benchmarks and whether they are installed")


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv, arguments=_arguments)
