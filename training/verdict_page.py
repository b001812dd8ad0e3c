"""The page a person reads about a verdict: sentence, intervals, which items changed sides, and how it was done."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.landings import warnings
from data.reports import csv_field
from training.benchmarks import BENCHMARKS
from training.card_page import Block, table
from training.champion import ENDPOINTS
from training.outcomes import Question, cells, column
from training.pictures import Card, cards_page, load_photos, words
from training.plots import BAD, GOOD, OPEN, Line, intervals
from training.statistics import POWER
from training.verdict import Comparison, Judgement, Rule

EXAMPLES = 3
COLOURS = {"pass": GOOD, "fail": BAD, "inconclusive": OPEN}


@dataclasses.dataclass(frozen=True)
class Change:
    """An item that only one of the two models gets right. `before` and `after` are what the outcome's `detail` is."""

    comparison: Comparison
    item: dict[str, Any]
    slice: str
    gained: bool
    before: float
    after: float

    @property
    def question(self) -> Question:
        return BENCHMARKS[self.comparison.name].question(self.item)


def changes(judgement: Judgement, challenger: pa.Table, champion: pa.Table, suites: Path) -> list[Change]:
    """Every item that changed sides, the clearest change first within its comparison."""
    ours, theirs, found = cells(challenger), cells(champion), []
    for comparison in judgement.comparisons:
        key = (comparison.name, comparison.metric)
        a, b = ours[key], theirs[key]
        items = {row["item_id"]: row for row in BENCHMARKS[comparison.name].items(suites).to_pylist()}
        after, before = column(a, "detail"), column(b, "detail")
        difference = column(a, "outcome") - column(b, "outcome")
        for index in np.argsort(-np.abs(after - before), kind="stable"):
            if difference[index]:
                item = items[a["item_id"][int(index)].as_py()]
                name = a["slice"][int(index)].as_py()
                moved = (bool(difference[index] > 0), float(before[index]), float(after[index]))
                found.append(Change(comparison, item, name, *moved))
    return found


def write_csv(found: Sequence[Change], path: Path) -> None:
    """One line per item that changed sides; a title that begins with `=` opens as text, not as a formula."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["benchmark", "metric", "item_id", "side", "champion", "challenger", "asked", "right", "wrong"])
        for c in found:
            side = "gained" if c.gained else "lost"
            row = [c.comparison.name, c.comparison.metric, c.item["item_id"], side, f"{c.before:g}", f"{c.after:g}"]
            writer.writerow(map(csv_field, [*row, c.question.asked, c.question.right, c.question.wrong]))


def forest(judgement: Judgement, method: str, champion: str, path: Path) -> None:
    """The difference of every comparison with its interval, its margin as a tick."""
    lines = []
    for c in judgement.comparisons:
        note = f"{100 * c.difference:+.1f}   {c.verdict}"
        value, low, high = 100 * c.difference, 100 * c.low, 100 * c.high
        lines.append(Line(c.label, value, low, high, note, COLOURS[c.verdict], marks=(-100 * c.margin,)))
        if beyond := c.beyond_control:
            value, low, high = (100 * beyond[key] for key in ("difference", "low", "high"))
            lines.append(Line("… beyond the control", value, low, high, f"{value:+.1f}", COLOURS[c.verdict]))
    intervals(
        lines, path, title=f"{method} minus {champion}: {judgement.verdict}", zero=True,
        xlabel="difference in points, with its interval",
        legend="dashed tick: the loss tolerated there",
    )  # fmt: skip


def changed_page(found: Sequence[Change], images: Path, path: Path) -> bool:
    """Photos of items gained and lost, one per product and at most three a side. False if nothing changed."""
    sections = []
    for comparison in dict.fromkeys(change.comparison.label for change in found):
        for gained in (True, False):
            chosen = _first_of_each_product(
                c for c in found if c.comparison.label == comparison and c.gained is gained
            )[:EXAMPLES]
            if chosen:
                side = "only the challenger is right" if gained else "only the champion is right"
                sections.append((f"{comparison}: {side}", [_card(change) for change in chosen]))
    if sections:
        photos = load_photos(images, {card.image_key for _, cards in sections for card in cards})
        cards_page(sections, photos, path)
    return bool(sections)


def _first_of_each_product(found: Any) -> list[Change]:
    first: dict[int, Change] = {}
    for change in found:
        first.setdefault(change.item["group"], change)
    return list(first.values())


def _card(c: Change) -> Card:
    q = c.question
    return Card(c.item["image_key"], words(q.asked, q.right, q.wrong, _moved(c)), frame=GOOD if c.gained else BAD)


def _moved(c: Change) -> str:
    match BENCHMARKS[c.comparison.name].detail:
        case "rank":
            return f"rank {c.before:.0f} → {c.after:.0f}"
        case "confidence":  # of whatever each model chose, so a right answer may be the less certain one
            return f"sure to {100 * c.before:.0f} % → {100 * c.after:.0f} %"
    return f"difference {c.before:+.3f} → {c.after:+.3f}"


def markdown(judgement: Judgement, found: Sequence[Change], facts: dict[str, Any], config: Rule) -> str:
    """The whole page. `facts` holds method, endpoint, champion kind and the record ids."""
    level = f"{100 * config.confidence:.4g} %"
    parts = [
        f"# {facts['method']}: {judgement.verdict}",
        f"**{facts['sentence']}**",
        "What the model is made of, what it costs and what is not known of it: [card.md](card.md), or as one file "
        "[card.html](card.html).",
        "![Differences with intervals](intervals.png)",
        f"## The comparisons\n\n{table(comparison_rows(judgement))}",
        f"Differences in points; intervals hold at {level}, from {config.resamples:,} resamples of product families "
        "(percentile). p is exact McNemar over families, Holm-adjusted.",
        _attempt_text(facts["method"], config),
        *(table(block) if isinstance(block, list) else str(block) for block in control_blocks(judgement, config)),
        f"## Items that changed sides\n\n{table(slice_rows(judgement, found))}",
        "All of them: [changed_sides.csv](changed_sides.csv).",
        *(["![Examples](changed.png)"] if found else []),
        f"## What was compared\n\n{table(_facts_rows(facts))}",
        *_data_text(facts["landings"]),
        f"## The rule\n\n{_rule(config)}",
    ]
    return "\n\n".join(parts) + "\n"


def _attempt_text(method: str, config: Rule) -> str:
    """How often this method has tried, and the chance that it was let through by luck."""
    rivals = len(ENDPOINTS[config.endpoint])
    each = f" Each of the {rivals} methods of {config.endpoint} has such a chance." if rivals > 1 else ""
    return (
        f"This is attempt {config.attempt} of {method} at this champion. A model that is no better passes in any of "
        f"them with a chance of {100 * config.lucky:.2g} % at most, and of {100 * config.alpha:g} % in all that may "
        f"follow: attempt k spends 1 / (k (k + 1)) of it.{each}"
        + (f" Without spending it would be {100 * config.lucky_unspent:.2g} %." if config.attempt > 1 else "")
    )


def _data_text(found: Sequence[dict[str, Any]]) -> list[str]:
    """What validation said of the data, which the model saw as it is: refused rows are not in it, warned ones are."""
    if not found:
        return []
    rows, refused = (sum(drop[key] for drop in found) for key in ("rows", "quarantined"))
    said = f"{len(found)} landed drop(s), {rows:,} rows, of which {refused:,} were refused."
    told = warnings(found)
    return [f"## Warnings about the data\n\n{said}", *([table(told)] if told else [])]


def comparison_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """The table of comparisons, in percent and points."""
    return [
        {
            "metric": c.label, "challenger": f"{100 * c.challenger:.1f} %", "champion": f"{100 * c.champion:.1f} %",
            "difference": f"{100 * c.difference:+.1f}", "interval": f"{100 * c.low:+.1f} to {100 * c.high:+.1f}",
            "margin": f"−{100 * c.margin:g}", "p": f"{c.p:.2g}", "items (families)": f"{c.n_items:,} ({c.n_units:,})",
            "verdict": c.verdict,
        }
        for c in judgement.comparisons
    ]  # fmt: skip


def slice_rows(judgement: Judgement, found: Sequence[Change]) -> list[dict[str, Any]]:
    """Gained and lost items per comparison, and per slice where there are several."""
    rows: list[dict[str, Any]] = []
    for c in judgement.comparisons:
        rows.append({"metric": c.label, "gained": c.gained, "lost": c.lost, "net": f"{c.gained - c.lost:+d}"})
        mine = [change for change in found if change.comparison == c]
        for name in sorted({change.slice for change in mine} - {""}):
            gained = sum(change.gained for change in mine if change.slice == name)
            lost = sum(not change.gained for change in mine if change.slice == name)
            rows.append({"metric": f"— {name}", "gained": gained, "lost": lost, "net": f"{gained - lost:+d}"})
    return rows


def control_blocks(judgement: Judgement, config: Rule) -> list[Block]:
    """How much of each difference the control shares: a table, and a sentence for each; nothing without a control.

    The difference is a sum over items, so it divides into what lies on items that the control gets right as well and
    what lies on those that it gets wrong.
    """
    rows, said = [], []
    for c in judgement.comparisons:
        if b := c.beyond_control:
            own = b["difference"] * b["n_items"] / c.n_items
            inside = f"{100 * b['difference']:+.1f} ({100 * b['low']:+.1f} to {100 * b['high']:+.1f})"
            blind = BENCHMARKS[c.name].blind
            rows.append({
                "metric": c.label, "control": blind, "difference": f"{100 * c.difference:+.1f}",
                "shared by the control": f"{100 * (c.difference - own):+.1f}", "beyond it": f"{100 * own:+.1f}",
                "on the items it gets wrong": inside, "those items": f"{b['n_items']:,.0f} of {c.n_items:,}",
            })  # fmt: skip
            said.append(
                f"On the {b['n_items']:,.0f} items of {c.label} that {blind} gets wrong, the difference is "
                f"{100 * b['difference']:+.1f} points ({100 * b['low']:+.1f} to {100 * b['high']:+.1f})"
                + (": a gain counts only if it also holds there." if c.name == config.primary else ".")
            )
    return [rows, *said] if rows else []


def _facts_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    names = {
        "endpoint": "endpoint", "model_record": "challenger's model record", "champion_kind": "champion",
        "champion_record": "champion's model record", "suites_record": "suites record",
    }  # fmt: skip
    rows = [{"what": text, "value": f"`{facts[key]}`"} for key, text in names.items()]
    return rows + [{"what": name, "value": f"`{digest}`"} for name, digest in facts["suites"].items()]


def _rule(config: Rule) -> str:
    margins = ", ".join(f"{100 * m:g} on {name.replace('_', ' ')}" for name, m in config.margins.items())
    primary, blind = config.primary.replace("_", " "), BENCHMARKS[config.primary].blind
    controlled = BENCHMARKS[config.primary].control is not None
    return (
        f"- **pass**: every interval lies above minus the margin (in points: {margins}), and on {primary} the "
        f"difference is above zero, by the interval, by the Holm-adjusted p ≤ {2 * config.level:.2g}"
        + (f", and on the items that {blind} gets wrong.\n" if controlled else ".\n")
        + f"- **fail**: some interval lies wholly below minus its margin, or on {primary} a gain is excluded"
        + (f", overall or beyond what {blind} gets.\n" if controlled else ".\n")
        + "- **inconclusive**: the items do not suffice for either. The number needed would decide with "
        f"{100 * POWER:.0f} % probability if new items vary as these do, and the true difference is the observed one "
        "or a margin away from the threshold, whichever is further.\n\n"
        "Ties count as failures. Every family is resampled whole, because captions of one product are not independent."
    )
