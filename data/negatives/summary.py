"""The one table of a set of negatives: edit by count, reject rate of each filter, audited error, blind accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.negatives.audit import Estimate
from data.negatives.filters import REASONS

LEAST_PAIRS = 30  # fewer tell nothing of a reader's accuracy
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
        rows {edit, type, negatives, captions, no_slot (share of the captions), drafts, one share of the drafts per
        filter that refused any, judged, true, error, bound, blind_words, blind_word_pairs}; shares in 0 .. 1, None
        where nothing was measured, or on fewer than 30 pairs by the blind reader.
    """
    rates = _rates(tally or {})
    whole: Mapping[str, int] = rates.get("all", {})
    refusals = [name for name in REASONS if name != "no_slot" and whole.get(name)]
    read = {row["edit"]: row for row in blind if row["pairs"] >= LEAST_PAIRS}
    rows = []
    for part in (estimate.whole, *estimate.edits):
        found: Mapping[str, int] = rates.get(part.edit, {})
        drafts = sum(found.get(name, 0) for name in ("kept", *refusals))
        refused = {name: _share(found.get(name, 0), drafts) for name in refusals}
        captions = found.get("captions", 0)
        empty = _share(found["no_slot"], captions) if "no_slot" in found else None
        made = {"captions": captions, "no_slot": empty, "drafts": drafts, **refused}
        seen = read.get(part.edit, {})
        rows.append({
            "edit": part.edit, "type": types.get(part.edit, ""), "negatives": part.negatives,
            **(made if tally is not None else {}), "judged": part.judged, "true": part.true,
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
    """What became of each edit and of all, over the caption kinds."""
    found: dict[str, Counter[str]] = {}
    for (_, edit), counts in tally.items():
        for name in ("all", edit):
            found.setdefault(name, Counter()).update(counts)
    if found:  # each edit was tried on the same captions
        found["all"]["captions"] = max(counts["captions"] for name, counts in found.items() if name != "all")
        found["all"].pop("no_slot", None)
    return found


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None
