"""What both fuzzers ask of any drop: it lands, or one `UserError` refuses it in words that are safe to print."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data import expectations, landed, reports, violations
from data.drops import read_drop
from data.expectations import Thresholds
from data.images import ImageLimits
from data.land import examine_pictures
from data.params import UserError

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=250_000)
LONGEST = 4_000  # characters of a message: a path or two, a header, a value


def attempt(folder: Path, out: Path) -> str:
    """Land the drop in `folder` into `out`, all but DVC and Data Docs. Returns why it was refused, or nothing.

    Raises AssertionError if the drop was altered, rows got lost or the message is none to print; any exception but a
    `UserError` escapes.
    """
    before = state(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        land(folder, out)
        refused = ""
    except UserError as error:
        refused = str(error)
        assert refused, "refused without a word"
        assert refused == reports.visible(refused).replace("\n", " "), f"hidden characters: {refused!r}"
        assert len(refused) <= LONGEST, f"{len(refused)} characters: {refused[:200]!r}"
        refused.encode()
    assert state(folder) == before, "the drop was altered"
    return refused


def land(folder: Path, out: Path) -> None:
    drop = read_drop(folder)
    pictures = examine_pictures(drop, LIMITS, progress=_quietly)
    table = expectations.frame(drop.table.rows, pictures)
    findings = [violations.find(rule, table) for rule in expectations.rules(Thresholds(), drop.mapping)]
    refused = landed.reasons(findings, drop)
    landed.write(out, drop, pictures, refused, _quietly)
    kept = {name: pq.read_table(out / f"{name}.parquet") for name in ("products", "quarantine", "withdrawn")}
    assert len(kept["products"]) + len(kept["quarantine"]) == len(drop)
    assert len(kept["withdrawn"]) == len(drop.table.withdrawn)
    for messages in kept["quarantine"]["messages"].to_pylist():
        assert all(message == reports.visible(message) for message in messages), messages


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    return {name: (entry.st_size, entry.st_mtime_ns) for name, entry in found.items()}


def _quietly(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items
