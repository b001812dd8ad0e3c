"""An append-only file of JSON lines that cannot be changed unseen.

A line's `id` is the hash of its content, and `after` the id of the line before it. A line is on disk before `append`
returns; one that a crash cut off does not count and is dropped by the next.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.params import UserError, canonical, canonical_hash


def entries(path: Path, keys: Sequence[str], what: str) -> list[dict[str, Any]]:
    """Every line, oldest first; none if there is no such file.

    Raises `UserError` naming the line that is not `what` ("a transition"), which has at least `keys`.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            entry = json.loads(line)
            for key in keys:
                entry[key]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: line {number} is not {what}. Restore the file from a backup.") from None
        found.append(entry)
    return found


def append(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Append a line, and return it with its `after` and `id` once it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # let go when the file is closed
        _drop_torn_line(stream)
        before = entries(path, (), "a line of JSON")
        entry = {**canonical(content), "after": before[-1].get("id") if before else None}
        entry["id"] = canonical_hash(entry)
        stream.write(_line(entry))
        stream.flush()
        os.fsync(stream.fileno())
    return entry


def damage(path: Path) -> list[tuple[int, str]]:
    """(line number, what is wrong) of the lines that are not as they were written; empty if the file is whole.

    The first lines may be from before lines had ids; they are taken as they are.
    """
    found: list[tuple[int, str]] = []
    before: str | None = None
    known = True  # whether `before` can be relied on
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            entry = json.loads(line)
            if not {"id", "after"} & set(entry) and known and before is None:
                continue
            stated, after = entry.pop("id"), entry["after"]
            intact = stated == canonical_hash(entry) and line == _line({**entry, "id": stated})
        except (ValueError, KeyError, AttributeError, TypeError):
            found.append((number, "cannot be read as a line with an id"))
            known = False
            continue
        if not intact:
            found.append((number, "was changed: its content does not have the id that it states"))
        elif known and after != before:
            found.append((number, "does not follow the line before it: lines were removed or put in"))
        before, known = stated, intact
    return found


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _drop_torn_line(stream: Any) -> None:
    """Cut off what a crash left of a half-written last line, so that the next line starts on its own."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 65536))
    tail = stream.read()
    if tail and not tail.endswith(b"\n"):
        stream.truncate(size - (len(tail) - tail.rfind(b"\n") - 1))
