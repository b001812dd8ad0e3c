"""Overrides: a person lets a model go live that no passing verdict lets, with a reason, and for a time.

An override authorises one model at one endpoint until `promotion.override_days` have passed. Then it authorises no
further promotion of that model, and everything that shows the endpoint says that it has expired; what is live goes on
serving until somebody replaces it, rolls it back, or renews the override with a reason. Taking away what answers calls
is an operator's decision, never the clock's. A rollback is never refused for it, and ends the override of the
model that it takes away.

On each line of the version's history (`registry.AUTHORITY`): `override` is the reason, `override_until` when it ends,
`overridden` what the verdict was, and `verdict_record` the id of the verdict it overrides, where there is one.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from data.record import write_atomically
from data.reports import markdown_cell
from serving import registry
from serving.config import LINEAGE, VERDICTS

CARDS = ("card.md", "card.html")
Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Override:
    """By whose word a version is live: `overridden` is what the gate said, `until` an ISO time (UTC)."""

    endpoint: str
    version: int
    model_record: str
    reason: str
    until: str
    overridden: str
    verdict_record: str | None

    @property
    def expired(self) -> bool:
        return datetime.now(UTC) >= datetime.fromisoformat(self.until)

    @property
    def sentence(self) -> str:
        """Which version, until when or since when not any more, and why."""
        ends = f"EXPIRED on {self.until[:10]}" if self.expired else f"until {self.until[:10]}"
        return f"{self.endpoint} version {self.version} is live by an override, {ends}: {self.reason}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the history says of it."""
        return {"override": self.reason, "override_until": self.until, "overridden": self.overridden,
                "verdict_record": self.verdict_record}  # fmt: skip


def ends(days: float) -> str:
    """When an override that begins now ends."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def of(entry: Entry) -> Override | None:
    """The override by which the version of a line of the history is live; None if a verdict lets it.

    One from before overrides had an end has expired: it ends when it began.
    """
    if not entry.get("override"):
        return None
    return Override(
        endpoint=entry["endpoint"], version=entry["version"], model_record=entry["model_record"],
        reason=entry["override"], until=entry.get("override_until") or entry["time"],
        overridden=entry.get("overridden") or "", verdict_record=entry.get("verdict_record"),
    )  # fmt: skip


def standing(endpoint: str) -> Override | None:
    """The override by which the endpoint's live version is live, expired or not."""
    version = registry.aliases(endpoint).champion
    return None if version is None else of(registry.describe(endpoint, version))


def latest(endpoint: str, model_record: str) -> Override | None:
    """The override given last for a model at an endpoint, expired or not; None once the model was rolled back."""
    for entry in reversed(registry.history(endpoint)):
        if entry.get("model_record") != model_record:
            continue
        if entry["to"] == "rolled_back":
            return None
        if override := of(entry):
            return override
    return None


def keep_card(endpoint: str, version: int, method: str, authority: Mapping[str, Any]) -> None:
    """The model card of a version, beside its lineage, with the override told in its first lines if it is one.

    The card is the verdict's; without a verdict on the model there is none to keep.
    """
    said = None
    if authority["override"]:
        said = f"Live without a passing verdict, by an override until {authority['override_until'][:10]}: "
        said += f"{authority['override']}"
    for name in CARDS if authority["verdict_record"] else ():
        card = VERDICTS / method / name
        if not card.is_file():
            continue
        text, page = card.read_text(encoding="utf-8"), card.suffix == ".html"
        end = "</h1>\n" if page else "\n\n"  # of the title
        if said:
            line = f"<p><b>{html.escape(said)}</b></p>\n" if page else f"**{markdown_cell(said)}**\n\n"
            text = text.replace(end, end + line, 1)
        write_atomically(LINEAGE / endpoint / str(version) / name, text)


def expired() -> list[Override]:
    """Live by an override that has ended: what somebody must act on."""
    found = (standing(endpoint) for endpoint in registry.live_versions())
    return [override for override in found if override and override.expired]
