"""`fittingroom demo`: a real drop all the way to answers from a promoted model, ending in one screen of summary.

It only calls what an operator would: land, `dvc repro`, promote, ask. Run again, each of them finds its work done and
says why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data import dvc
from data.params import UserError, load
from data.record import RECORD
from training.champion import BASE, ENDPOINTS

STARTER = Path("data/starter/drop-1")
ENDPOINT = "search"
QUESTIONS = ("red running shoes for women", "black leather wallet for men", "blue printed kurta")
HEADLINES = {  # of each endpoint: benchmark, metric, heading
    "search": (
        ("compositional", "accuracy", "compositional"),
        ("catalog_retrieval", "t2i_R@10", "title to photo"),
        ("catalog_retrieval", "i2t_R@10", "photo to title"),
    ),
    "compose": (
        ("composed_retrieval", "R@1", "composed R@1"),
        ("composed_retrieval", "R@10", "composed R@10"),
    ),
    "attributes": (
        ("attributes", "accuracy", "attributes"),
        ("attributes", "recall_at_90_precision", "recall at 90 % precision"),
    ),
}
DROPS, EVALUATIONS, VERDICTS = Path("store/drops"), Path("store/evaluations"), Path("store/verdicts")


def demo(drops: Sequence[Path] = (STARTER,)) -> int:
    """Land `drops`, rebuild what changed, promote the configured method if its verdict allows, ask, sum up.

    Returns 0 if the endpoint answered, 1 if a stage failed or nothing is live. Raises `UserError` for a bad drop.
    """
    from data.land import land
    from serving import promote, server

    console = Console(highlight=False)
    seconds: dict[str, float] = {}
    with _timed(console, seconds, "land and validate"):
        land(list(drops))
    with _timed(console, seconds, "dataset, negatives, train seven methods, evaluate, gate, export"):
        if code := dvc.repro():
            console.print(
                f"[red]dvc repro ended with {code}[/]; the line above names the stage. Run the demo again to resume."
            )
            return 1
    refused = None
    with _timed(console, seconds, "promote"):
        server.ensure_running()
        try:
            promote.promote(load()["promotion"]["endpoints"][ENDPOINT], endpoint=ENDPOINT)
        except UserError as error:
            refused = str(error)
    with _timed(console, seconds, "ask"):
        answers = _ask(console, live=promote.status()["endpoints"][ENDPOINT]["live_version"] is not None)
    _summary(console, promote.status(), answers, refused, seconds)
    return 0 if answers else 1


@contextmanager
def _timed(console: Console, seconds: dict[str, float], step: str) -> Iterator[None]:
    console.rule(f"[bold]{step}", align="left")
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started


def _ask(console: Console, *, live: bool) -> list[tuple[str, Any]]:
    from serving.ask import ask

    if not live:
        console.print("[yellow]nothing is live on this endpoint yet, so there is nobody to ask[/]")
        return []
    return [(question, ask(question, k=3)) for question in QUESTIONS]


def _summary(
    console: Console,
    status: dict[str, Any],
    answers: list[tuple[str, Any]],
    refused: str | None,
    seconds: dict[str, float],
) -> None:
    """The closing screen: what entered, how the models did, who is live, what it answers, where the pictures are."""
    console.rule("[bold]Fitting Room", align="left")
    for report in sorted(DROPS.glob("*/report.json")):
        console.print(_drop_line(json.loads(report.read_text(encoding="utf-8"))))
    for endpoint in HEADLINES:
        console.print(_metrics_table(endpoint))
    for path in sorted(VERDICTS.glob("*/verdict.json")):
        verdict = json.loads(path.read_text(encoding="utf-8"))
        colour = {"pass": "green", "fail": "red"}.get(verdict["verdict"], "yellow")
        console.print(f"verdict  {verdict['method']}: [{colour}]{verdict['verdict']}[/]. {verdict['reason']}")
    if refused:
        console.print(f"[yellow]not promoted[/]  {refused}")
    live = status["endpoints"][ENDPOINT]
    if live["live_version"] is not None:
        console.print(
            f"live     [bold]{ENDPOINT}[/] version {live['live_version']} on Triton: "
            f"{live['method']}, model record {live['model_record'][:12]}"
        )
        console.print(f"         what stands behind it: fittingroom trace {ENDPOINT}")
    for question, answer in answers:
        console.print(f"[bold]{question}[/]")
        for hit in answer.hits:
            console.print(f"    {hit.score:.3f}  {hit.id:>6}  {escape(hit.title)}")
    pictures = [str(answer.picture) for _, answer in answers] + [str(p) for p in _pictures()]
    console.print("pictures " + "\n         ".join(pictures), soft_wrap=True)
    console.print("seconds  " + ", ".join(f"{step} {value:.0f}" for step, value in seconds.items()))
    console.print('next     `make up` opens this graph in the Dagster UI; `fittingroom ask "..."` asks more')


def _drop_line(report: dict[str, Any]) -> str:
    reasons = ", ".join(f"{count} {rule}" for rule, count in report["quarantined_by_rule"].items()) or "none"
    return (
        f"drop     {report['drop_id']} ({report['name']}): [green]{report['accepted']} accepted[/], "
        f"{report['quarantined']} quarantined ({reasons})"
    )


def _metrics_table(endpoint: str) -> Table:
    """One row per model that competes, one column per headline metric, percent of test items with 95 % intervals.

    Retrieval is R@10 where the heading names no other.
    """
    headlines = HEADLINES[endpoint]
    labels = (label for _, _, label in headlines)
    table = Table(f"{endpoint} %", *labels, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (BASE, *ENDPOINTS[endpoint]):
        if found := _metrics(name):
            table.add_row(name, *(_cell(found.get(benchmark, {}).get(metric)) for benchmark, metric, _ in headlines))
    blind = _metrics(BASE).get("compositional", {}).get("blind_accuracy")
    if endpoint == ENDPOINT and blind:
        table.caption = f"compositional, of a scorer that sees no photo: {_cell(blind)}"
    return table


def _metrics(model: str) -> dict[str, Any]:
    path = EVALUATIONS / model / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _cell(metric: dict[str, float] | None) -> str:
    return f"{metric['value']:.1%} ({metric['low']:.1%}-{metric['high']:.1%})".replace("%", "") if metric else "-"


def _pictures() -> list[Path]:
    """The pictures that the records of this workspace point to, the few that people look at first."""
    folders = [Path("store/dataset"), Path("store/negatives"), *sorted(VERDICTS.glob("*"))]
    found = []
    for folder in folders:
        path = folder / RECORD
        if path.is_file():
            named = json.loads(path.read_text(encoding="utf-8"))["pictures"]
            found += [folder / picture for picture in list(named.values())[:1]]
    return found
