"""Which version of which model answers an endpoint: an append-only history, and the aliases that follow from it.

Every transition of the promotion state machine is one line of `registry.jsonl`, on disk before the next step begins
(`data.ledger`), so that none can be changed unseen.
The aliases `champion` and `previous` are a function of that history; `aliases.json` is their copy for readers, replaced
by rename, so that a client that looks up the champion sees the old or the new one and never half a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from data import ledger
from data.params import UserError, canonical
from data.record import write_atomically
from serving.config import SERVING
from serving.lock import me

HISTORY = SERVING / "registry.jsonl"
ALIASES = SERVING / "aliases.json"

# operators.md section 4, and `superseded` for a version that gave way to a better one. A version that was superseded
# may become live again by a rollback, on the same way through `live-pending`. From `live` to `live` leads the renewal
# of an override.
TRANSITIONS: dict[str | None, frozenset[str]] = {
    None: frozenset({"exported"}),
    "exported": frozenset({"staged", "rejected"}),
    "staged": frozenset({"checked", "rejected"}),
    "checked": frozenset({"live-pending", "rejected"}),
    "live-pending": frozenset({"live", "rolled_back", "superseded"}),
    "live": frozenset({"superseded", "rolled_back", "live"}),
    "superseded": frozenset({"live-pending"}),
    "rejected": frozenset({"exported"}),  # a number that never went under the live name is given again
    "rolled_back": frozenset(),
}
IDENTITY = ("method", "model_record", "export_record", "folder")
AUTHORITY = ("verdict_record", "override", "override_until", "overridden")  # by what right it is live: see overrides.py
CARRIED = (*IDENTITY, *AUTHORITY)  # facts of a version, repeated on each of its lines
RENEW = "renew"  # `action` of a line by which a version stays live: its override was given again
UNFINISHED = frozenset({"exported", "staged", "checked", "live-pending"})


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """The versions that an endpoint's two aliases name."""

    champion: int | None = None
    previous: int | None = None


def history(endpoint: str | None = None) -> list[dict[str, Any]]:
    """Every transition, oldest first; of one endpoint if given. A line cut off by a crash does not count.

    Raises `UserError` naming the line that is not a transition.
    """
    lines = ledger.entries(HISTORY, ("endpoint", "version", "to"), "a transition")
    return [entry for entry in lines if endpoint in (None, entry["endpoint"])]


def append(endpoint: str, version: int, to: str, **facts: Any) -> dict[str, Any]:
    """Append one transition of `version` to state `to`, and return it once it is on disk.

    Facts that describe the version (method, record ids, hashes) are carried over from its earlier lines. Raises
    `ValueError` for a transition that the state machine does not have.
    """
    before = describe(endpoint, version)
    state = before.get("to")
    if to not in TRANSITIONS[state]:
        raise ValueError(f"{endpoint} version {version}: no transition from {state} to {to}")
    carried = {key: before[key] for key in CARRIED if key in before} if to != "exported" else {}
    return ledger.append(HISTORY, {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "who": me(), "endpoint": endpoint,
        "version": version, "from": state, "to": to, **carried, **facts,
    })  # fmt: skip


def damage() -> list[tuple[int, str]]:
    """(line number, what is wrong) of the lines that are not as they were written; empty if the history is whole."""
    return ledger.damage(HISTORY)


def describe(endpoint: str, version: int) -> dict[str, Any]:
    """The last transition of one version, with the facts that identify it; empty if there is no such version."""
    return next((entry for entry in reversed(history(endpoint)) if entry["version"] == version), {})


def live_stack(entries: Iterable[dict[str, Any]]) -> list[int]:
    """The versions of one endpoint that went live and were not rolled back, the champion last.

    Promoting puts a version on top; a rollback makes an earlier one the top again, and those above it are gone.
    """
    stack: list[int] = []
    for entry in entries:
        if entry["to"] == "live":
            version = entry["version"]
            stack = stack[: stack.index(version)] if version in stack else stack
            stack.append(version)
        elif entry["to"] == "rolled_back" and entry["version"] in stack:
            stack.remove(entry["version"])
    return stack


def aliases(endpoint: str) -> Aliases:
    """The endpoint's aliases, from its history."""
    stack = live_stack(history(endpoint))
    return Aliases(champion=stack[-1] if stack else None, previous=stack[-2] if len(stack) > 1 else None)


def publish() -> None:
    """Bring `aliases.json` in line with the history."""
    endpoints = sorted({entry["endpoint"] for entry in history()})
    content = {endpoint: canonical(aliases(endpoint)) for endpoint in endpoints}
    write_atomically(ALIASES, json.dumps(content, indent=2) + "\n")


def champion(endpoint: str) -> int | None:
    """The version that `aliases.json` names champion: what a client that pins its version asks for."""
    try:
        found = json.loads(ALIASES.read_text(encoding="utf-8")).get(endpoint, {}).get("champion")
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise UserError(f"{ALIASES}: not readable; remove it, the next promotion or rollback writes it anew.") from None
    return int(found) if found is not None else None


def live_versions() -> dict[str, int]:
    """The champion of every endpoint that has one: what a server loads when it starts."""
    names = sorted({entry["endpoint"] for entry in history()})
    return {name: found for name in names if (found := aliases(name).champion) is not None}
