"""A study's page: `docs/studies/<name>.json`, `.md` and `.png`, and its table in the README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.params import UserError
from data.record import write_atomically
from training.plots import BAD, GOOD, PLAIN, Line, intervals
from training.studies.findings import FINDINGS
from training.studies.study import Study

DOCS, README = Path("docs/studies"), Path("README.md")
BEGIN, END = "<!-- studies: written by `python -m training.studies` -->", "<!-- end of studies -->"


def write(study: Study, found: dict[str, Any]) -> None:
    """The three files of a study."""
    DOCS.mkdir(parents=True, exist_ok=True)
    write_atomically(DOCS / f"{study.name}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    draw(study, found, DOCS / f"{study.name}.png")
    write_atomically(DOCS / f"{study.name}.md", page(study, found))


def page(study: Study, found: dict[str, Any]) -> str:
    """The whole study as markdown: claim, arms, headline table, every difference."""
    arms = "\n".join(f"- **{name}**: {what}" for name, what in study.arms.items())
    seeds = ", ".join(str(seed) for seed in study.seeds)
    rows = [
        [_title(d), d["arm"], d["against"], _points(d), _spread(d["seeds"])]
        for d in found["differences"]
    ]  # fmt: skip
    every = _table(["metric", "arm", "against", "difference (95 %), points", "over seeds"], rows)
    parts = [
        f"# {study.title}", f"Claim: {study.claim}", arms, f"Seeds {seeds}; made by `python -m training.studies "
        f"{study.name}`. Percent of test items; intervals resample product families.", headline(study, found),
        FINDINGS.get(study.name, ""), study.note, f"![differences]({study.name}.png)",
        "## Every paired difference", every,
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(study: Study, found: dict[str, Any]) -> str:
    """Arms by headline metrics, in percent, with the difference from the rival and its interval below."""
    chosen = [key for key in study.headline if any(_key(n) == key for n in found["numbers"])]
    header = ["arm", *(" ".join(part.replace("_", " ") for part in key[1:] if part) for key in chosen)]
    rows = []
    for arm in study.arms:
        cells = []
        for key in chosen:
            number = next(n for n in found["numbers"] if _key(n) == key and n["arm"] == arm)
            against = [d for d in found["differences"] if _key(d) == key and d["arm"] == arm]
            cells.append(
                f"{100 * number['value']:.1f}" + "".join(f"<br>{_points(d)}{_whom(d, against)}" for d in against)
            )
        rows.append([arm, *cells])
    return _table(header, rows)


def draw(study: Study, found: dict[str, Any], path: Path) -> None:
    """The headline differences as an interval plot: green lies above no difference, red below."""
    lines = []
    for key in study.headline:
        heading = " ".join(part.replace("_", " ") for part in key if part)
        for d in (d for d in found["differences"] if _key(d) == key):
            colour = GOOD if d["low"] > 0 else BAD if d["high"] < 0 else PLAIN
            marks = tuple(100 * value for value in d["seeds"])
            label = f"{d['arm']} - {d['against']}"
            value, low, high = (100 * d[name] for name in ("value", "low", "high"))
            lines.append(Line(label, value, low, high, f"{value:+.1f}", colour, heading, marks))
            heading = ""
    intervals(
        lines, path, title=study.title, xlabel="difference in points, with 95 % interval", zero=True,
        legend="dashed ticks: each seed",
    )  # fmt: skip


def write_readme(studies: Sequence[Study], readme: Path = README) -> None:
    """Put the headline tables of all studies that have a page between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UserError(f"{readme}: the markers of the studies are missing; restore `{BEGIN}` and `{END}`.")
    blocks = []
    for study in studies:
        path = DOCS / f"{study.name}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            said = f"**[{study.title}]({DOCS}/{study.name}.md)** {study.claim}"
            blocks += [said, headline(study, found), FINDINGS.get(study.name, "")]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_atomically(readme, f"{before}{BEGIN}\n\n" + "\n\n".join(filter(None, blocks)) + f"\n\n{END}{after}")


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["benchmark"], row["metric"], row["slice"]


def _whom(difference: dict[str, Any], all_of_arm: Sequence[dict[str, Any]]) -> str:
    """The rival's name where an arm has several."""
    return f" {difference['against']}" if len(all_of_arm) > 1 else ""


def _title(row: dict[str, Any]) -> str:
    return " ".join(part for part in _key(row) if part)


def _points(d: dict[str, Any]) -> str:
    return f"{100 * d['value']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"


def _spread(values: Sequence[float]) -> str:
    return f"{100 * min(values):+.1f} to {100 * max(values):+.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
