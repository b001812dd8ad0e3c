"""The one table of a set of negatives: edit by count, reject rate of each filter, audited error, blind accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.negatives.audit import Estimate

Tally = Mapping[tuple[str, str], Counter[str]]


def summary_table(
    estimate: Estimate, types: Mapping[str, str], tally: Tally | None, blind: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per edit and one for all.

    Args:
        estimate: the audit.
        types: the edit type of each edit.
        tally: {(caption kind, edit): counts of "kept" and of each filter's refusals}; None leaves the rates out.
        blind: rows {edit, pairs, words, word_pairs} of `blind_table`.

    Returns:
        rows {edit, type, negatives, drafts, one share of the drafts per filter that refused any, judged, true, error,
        bound, blind_words, blind_word_pairs}; shares in 0 .. 1.
    """
    rates = _rates(tally or {})
    reasons = [name for name in rates.get("all", {}) if name not in ("drafts", "kept") and rates["all"][name]]
    read = {row["edit"]: row for row in blind}
    rows = []
    for part in (estimate.whole, *estimate.edits):
        found: Mapping[str, int] = rates.get(part.edit, {})
        drafts = found.get("drafts", 0)
        refused = {name: round(found.get(name, 0) / drafts, 4) if drafts else None for name in reasons}
        seen = read.get(part.edit, {})
        rows.append({
            "edit": part.edit, "type": types.get(part.edit, ""), "negatives": part.negatives,
            **({"drafts": drafts} if tally is not None else {}), **refused, "judged": part.judged, "true": part.true,
            "error": round(part.error.share, 5), "bound": round(part.error.high, 5),
            "blind_words": seen.get("words"), "blind_word_pairs": seen.get("word_pairs"),
        })  # fmt: skip
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for a README: counts with commas, shares in per cent, nothing where nothing was measured."""
    names = list(rows[0])
    body = [[_cell(name, row[name]) for name in names] for row in rows]
    head = [name.replace("_", " ") for name in names]
    rule = ["---" if name in ("edit", "type") else "--:" for name in names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body)) + "\n"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{100 * value:.2f} %" if name in ("error", "bound") else f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rates(tally: Tally) -> dict[str, Counter[str]]:
    """Drafts, kept and refusals of each edit and of all, over the caption kinds. Captions that had nothing to edit made
    no draft, but count with the filter that says so."""
    found: dict[str, Counter[str]] = {}
    for (_, edit), counts in tally.items():
        for name in ("all", edit):
            part = found.setdefault(name, Counter())
            for reason, count in counts.items():
                if reason != "captions":
                    part[reason] += count
                    part["drafts"] += count
    return found
