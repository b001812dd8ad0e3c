"""What the commands print for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.staleness import Staleness

RECORD_DIGITS = 12


def show_stages(found: Staleness) -> None:
    """The stages that are out of date, and what changed; one line if none is."""
    console = Console(highlight=False, soft_wrap=True)
    if not found.missing and not found.direct:
        console.print("[green]every stage is up to date[/]")
        return
    table = Table("stage", "state", "because", box=None, pad_edge=False)
    for name, causes in found.direct.items():
        table.add_row(name, "[yellow]stale[/]", "; ".join(causes))
    for name in found.missing:
        table.add_row(name, "[red]never run[/]", "")
    for name in found.affected:
        table.add_row(name, "downstream", "may change once the stages above have run")
    console.print(table)
    console.print("`dvc repro` rebuilds them")


def show_serving(status: Mapping[str, Any]) -> None:
    """One row per endpoint: who answers, since which record, and whether it is ready."""
    table = Table("endpoint", "live", "method", "model record", "previous", "state", "ready", box=None, pad_edge=False)
    for name, endpoint in status["endpoints"].items():
        live, record = endpoint["live_version"], endpoint["model_record"]
        table.add_row(
            name, _number(live), endpoint["method"] or "-", (record or "-")[:RECORD_DIGITS],
            _number(endpoint["previous_version"]), endpoint["state"] or "-",
            "[green]yes[/]" if endpoint["ready"] else "[red]no[/]",
        )  # fmt: skip
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for name, endpoint in status["endpoints"].items():
        if endpoint["override"]:
            console.print(f"override {name}: {_override(endpoint)}")
    server = ", ".join(f"{key} {value}" for key, value in (status["server"] or {}).items() if value is not None)
    console.print(f"server   {server or 'not running'}")


def show_answer(answer: Any) -> None:
    """The products of an answer, best first, and where their pictures are."""
    console = Console(highlight=False, soft_wrap=True)
    for hit in answer.hits:
        console.print(f"[bold]{hit.score:7.3f}[/]  {hit.id:>8}  {escape(hit.title)}")
    console.print(f"pictures {answer.picture}")
    trace = f"fittingroom trace {answer.record[:RECORD_DIGITS]}"
    console.print(f"answered by {answer.endpoint} version {answer.version}, see `{trace}`")


def _override(endpoint: Mapping[str, Any]) -> str:
    """Until when the override holds, and why it was given."""
    day = endpoint["override_until"][:10]
    ends = f"[red]EXPIRED on {day}[/]" if endpoint["override_expired"] else f"until {day}"
    return f"{ends} ({escape(endpoint['override'])})"


def _number(version: int | None) -> str:
    return "-" if version is None else str(version)
