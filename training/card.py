"""The model card: what a model was made of, how it was judged, what it cost, and what nobody knows about it.

Written beside each verdict, as card.md and as card.html, one file that can be mailed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data import record, stage
from data.landings import STATISTICS, warnings
from data.params import UserError, load, strict
from training import cost, verdict_page
from training.benchmarks import BENCHMARKS, sat_for
from training.card_page import Block, Rows, Section, markdown, page
from training.evaluate import DATASET, EVALUATIONS, MODELS, SUITES
from training.official import MODULES
from training.official.files import root
from training.outcomes import cells, column
from training.paired import paired
from training.plots import FAINT, PLAIN, Line, intervals
from training.statistics import Estimate, estimate
from training.verdict import Judgement, Rule
from training.verdict_page import Change

CARD, PAGE, SCORES = "card.md", "card.html", "benchmarks.png"
NEGATIVES, OFFICIAL = Path("store/negatives"), Path("store/official")
METHODS = Path(__file__).parent / "methods"


def write_card(
    run: stage.Run, judgement: Judgement, facts: dict[str, Any], config: Rule, found: Sequence[Change],
    ours: pa.Table, theirs: pa.Table,
) -> None:  # fmt: skip
    """Write the card of a judged challenger into `run.out`, where intervals.png and changed.png already are.

    Args:
        facts: as of the verdict page: method, endpoint, champion kind, sentence, landings, record ids.
        found: the items that changed sides.
        ours, theirs: outcomes of challenger and champion.
    """
    rows = score_rows(config.endpoint, ours, theirs, facts, run.out / SCORES)
    run.picture("Champion and challenger", run.out / SCORES)
    model = _model_record(facts)
    changed: list[Block] = [verdict_page.slice_rows(judgement, found)]
    if (run.out / "changed.png").is_file():
        changed.append(Path("changed.png"))
    sections = [
        Section("Verdict", [
            _identity(facts), Path("intervals.png"), verdict_page.comparison_rows(judgement),
            "Differences in points. Benchmarks that are not listed here are shown below and decide nothing.",
            *verdict_page.control_blocks(judgement, config),
        ]),
        Section("Champion and challenger", [
            Path(SCORES), rows, "In percent, with 95 % intervals over product families; differences in points.",
        ]),
        Section("Official benchmarks", _official(facts["method"], model)),
        Section("Items that changed sides", changed),
        Section("Data", _data(facts["landings"])),
        Section("Noise of the hard negatives", _noise(model)),
        Section("Method and settings", _method(facts["method"], model)),
        Section("Limits", [_limits(facts, judgement, config)]),
        Section("Cost", _cost(facts["method"], model)),
    ]  # fmt: skip
    title = f"{facts['method']}: {judgement.verdict}"
    (run.out / CARD).write_text(markdown(title, facts["sentence"], sections), encoding="utf-8")
    (run.out / PAGE).write_text(page(title, facts["sentence"], sections, run.out), encoding="utf-8")


def score_rows(endpoint: str, ours: pa.Table, theirs: pa.Table, facts: dict[str, Any], path: Path) -> Rows:
    """A row per metric of all exams that both sat, and their plot into `path`."""
    mine, others = cells(ours), cells(theirs)
    rows: Rows = []
    lines: list[Line] = []
    for name, benchmark in sat_for(endpoint).items():
        both = [metric for n, metric in mine if n == name and (name, metric) in others]
        for metric in benchmark.gate_metrics or [m for m in both if m != benchmark.control]:
            a, b = paired(mine, others, (name, metric))
            units, x, y = column(a, "unit"), column(a, "outcome"), column(b, "outcome")
            one, two = estimate(x, units, (0.0, 1.0)), estimate(y, units, (0.0, 1.0))
            gap = estimate(x - y, units, (-1.0, 1.0))
            rows.append({
                "benchmark": name.replace("_", " "), "metric": metric, "challenger %": _interval(one),
                "champion %": _interval(two), "difference": _interval(gap, sign="+"), "items": f"{gap.n:,}",
                "decides": "yes" if benchmark.gate_metrics else "no",
            })  # fmt: skip
            heading = rows[-1]["benchmark"] if not lines or rows[-1]["benchmark"] != rows[-2]["benchmark"] else ""
            lines += [
                _line(f"{metric}  {facts['method']}", one, PLAIN, heading),
                _line(facts["champion_kind"], two, FAINT),
            ]
    intervals(
        lines, path, title=f"{facts['method']} (blue) and {facts['champion_kind']} (grey)",
        xlabel="percent of items, with 95 % interval (resampled by product family)",
    )  # fmt: skip
    return rows


def _line(label: str, e: Estimate, colour: str, heading: str = "") -> Line:
    return Line(label, 100 * e.value, 100 * e.low, 100 * e.high, f"{100 * e.value:.1f} %", colour, heading)


def _interval(e: Estimate, sign: str = "") -> str:
    return f"{100 * e.value:{sign}.1f} ({100 * e.low:{sign}.1f} to {100 * e.high:{sign}.1f})"


def _model_record(facts: dict[str, Any]) -> record.Record | None:
    """The record of exactly the judged model; None if another one lies in its folder by now."""
    try:
        found = record.read(MODELS / facts["method"])
    except UserError:
        return None
    return found if found.id == facts["model_record"] else None


def _identity(facts: dict[str, Any]) -> Rows:
    names = {
        "method": "method", "endpoint": "endpoint", "model_record": "model record", "champion_kind": "compared with",
        "champion_record": "its model record", "suites_record": "suites record",
    }  # fmt: skip
    return [{"what": text, "value": facts[key]} for key, text in names.items()]


def _official(method: str, model: record.Record | None) -> list[Block]:
    """The headline of each official benchmark that exactly this model sat on request."""
    rows = []
    for name in MODULES:
        folder = OFFICIAL / method / name
        if model is None or not (folder / record.RECORD).is_file():
            continue
        if model.id in {item["record"] for item in record.read(folder).inputs}:
            told = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            number = told["metrics"][told["headline"]]
            shown = {key: f"{number[key]:.1f}" if key in number else "" for key in ("value", "low", "high", "chance")}
            rows.append({
                "benchmark": told["title"], "metric": told["headline"], "percent": shown["value"],
                "95 % interval": f"{shown['low']} to {shown['high']}", "chance": shown["chance"],
                "items": f"{told['items']:,}",
            })  # fmt: skip
    return [rows or "None was run with this model: `python -m training.official` does, once their files are there."]


def _data(landings: Sequence[dict[str, Any]]) -> list[Block]:
    """What the model could learn from: drops, products, withdrawals; and what validation said of them."""
    counts: dict[str, Any] = {}
    if (DATASET / STATISTICS).is_file():
        told = json.loads((DATASET / STATISTICS).read_text(encoding="utf-8"))
        names = {
            "products": "products", "images": "pictures", "groups": "families", "without_title": "without a title",
            "replaced_rows": "rows replaced by later drops", "withdrawn_products": "products withdrawn",
        }  # fmt: skip
        counts = {text: told[key] for key, text in names.items() if key in told}
    drops = [
        {"drop": drop["name"], "drop id": drop["drop_id"][:12], "rows": f"{drop['rows']:,}",
         "refused": f"{drop['quarantined']:,}", "drifted": ", ".join(drop["drifted"]) or "nothing"}
        for drop in landings
    ]  # fmt: skip
    told_of = warnings(landings)
    return [
        [{"dataset": text, "number": f"{number:,}"} for text, number in counts.items()],
        drops or "No reports of landed drops are at hand.",
        "Warnings of the validation; rows with one are in the data as they are." if told_of else "",
        told_of,
    ]


def _noise(model: record.Record | None) -> list[Block]:
    """How many hard negatives are true after all, as audited, with the bound, for exam and for training."""
    asked = {"exam": SUITES}
    if model and any(item["path"] == NEGATIVES.as_posix() for item in model.inputs):
        asked["training"] = NEGATIVES
    rows = []
    for what, folder in asked.items():
        summary = record.read(folder).summary if (folder / record.RECORD).is_file() else {}
        if "audit_judged" in summary:
            rows.append({
                "negatives of the": what, "judged": f"{summary['audit_judged']:,}", "true": summary["audit_true"],
                "share": f"{100 * summary['audit_error']:.2f} %", "at most": f"{100 * summary['audit_bound']:.2f} %",
            })  # fmt: skip
    if not rows:
        return ["No audit of the hard negatives is at hand."]
    return [
        rows,
        "A negative that is true is decided by a coin's toss, so it costs whoever sees well half an item. The last "
        "column is the upper limit of a 95 % interval (Wilson).",
    ]


def _method(name: str, model: record.Record | None) -> list[Block]:
    path = METHODS / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    told = (text or "").split("\n\n")[0].replace("\n", " ")
    if model is None:
        return [told, "The model's record is not at hand, so its settings are not listed."]
    settings = [{"setting": key, "value": value} for key, value in _flat(model.parameters)]
    settings += [{"setting": f"seed of {key}", "value": str(value)} for key, value in model.seeds.items()]
    inputs = [{"made from": item["path"], "record": (item["record"] or "")[:12]} for item in model.inputs]
    return [told, inputs, settings]


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(values, dict):
        return [pair for key, inner in values.items() for pair in _flat(inner, f"{prefix}.{key}" if prefix else key)]
    shown = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
    return [(prefix, shown)]


def _limits(facts: dict[str, Any], judgement: Judgement, config: Rule) -> tuple[str, ...]:
    absent = [name for name in MODULES if not (root() / name).is_dir()]
    shown = [name.replace("_", " ") for name, b in sat_for(config.endpoint).items() if not b.gate_metrics]
    others = sorted({b.endpoint for b in BENCHMARKS.values()} - {config.endpoint})
    families = max(c.n_units for c in judgement.comparisons)
    lines = [
        f"Judged on at most {families:,} product families of this catalog's test split. Other catalogs, other "
        "languages and photos taken otherwise are not measured.",
        f"Shown, but without a margin that anybody agreed on: {', '.join(shown)}." if shown else "",
        f"What {' and '.join(others)} ask was not asked of it.",
        "Fairness across the people on the photos is not measured.",
        "Speed and memory in service are not measured here, but before a promotion.",
        f"Official benchmarks not installed when this was written: {', '.join(absent)}." if absent else "",
    ]  # fmt: skip
    return tuple(line for line in lines if line)


def _cost(method: str, model: record.Record | None) -> list[Block]:
    content = load()
    prices = strict(cost.CostConfig, content["cost"], "params.yaml: cost") if "cost" in content else None
    spent = cost.chain(model, MODELS) if model else []
    if (EVALUATIONS / method / record.RECORD).is_file():
        spent.append(cost.of_record(record.read(EVALUATIONS / method), "scoring_seconds"))
    return list(cost.blocks(spent, prices))
