"""What validation said of the drops that a dataset was made of, as a dataset carries it to model cards and verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STATISTICS = "statistics.json"


def landings(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """{name, drop_id, rows, quarantined, warnings: {rule: rows}, drifted: [feature]} of landed drops, from reports."""
    found = []
    for folder in folders:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        found.append({
            "name": report.get("name", folder.name), "drop_id": report["drop_id"], "rows": report.get("rows", 0),
            "quarantined": report.get("quarantined", 0), "warnings": report.get("warnings_by_rule", {}),
            "drifted": [item["feature"] for item in report.get("drift", []) if not item["passed"]],
        })  # fmt: skip
    return found


def of_dataset(folder: Path) -> list[dict[str, Any]]:
    """The landings that a dataset's statistics carry; empty for one that was made before they did."""
    path = folder / STATISTICS
    return json.loads(path.read_text(encoding="utf-8")).get("landings", []) if path.is_file() else []


def warnings(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table of the warnings, one row per rule: how many rows of how many drops, the most frequent first."""
    rows: dict[str, dict[str, Any]] = {}
    for drop in found:
        counts = {**drop["warnings"], **{f"drift_{feature}": drop["rows"] for feature in drop["drifted"]}}
        for rule, count in counts.items():
            held = rows.setdefault(rule, {"warning": rule, "rows": 0, "drops": 0})
            held["rows"] += count
            held["drops"] += 1
    return sorted(rows.values(), key=lambda row: (-row["rows"], row["warning"]))
