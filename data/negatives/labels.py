"""People's labels of hard negatives: a plain file to which lines are added, and which negatives to ask about.

One JSON object a line: `key` (audit.key_of), `row_id`, `negative`, `label` ("true": the negative is true of the photo;
"false"; "unsure"), `who`, `when` (UTC). A person's later line replaces the earlier; what several people say is settled
by majority, and a tie, like "unsure", is no label. The file is small and made by hand: keep it under version control.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.negatives.audit import SPOKEN_LABELS, AuditConfig, key_of
from data.negatives.witnesses import WITNESSES
from data.params import UserError

Row = Mapping[str, Any]
WORDS = ("true", "false", "unsure")


@dataclass(frozen=True, slots=True)
class Label:
    """One line of the labels file."""

    key: str
    row_id: str
    negative: str
    label: str
    who: str
    when: str


def read_labels(path: Path) -> list[Label]:
    """The lines of a labels file in order; none where there is no file. Raises `UserError` that names a bad line."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            label = Label(**json.loads(line))
        except (ValueError, TypeError):
            raise UserError(f"{path}, line {number}: not a label. Remove the line and label it again.") from None
        if label.label not in WORDS or not all(isinstance(value, str) for value in asdict(label).values()):
            raise UserError(f"{path}, line {number}: `label` must be one of {', '.join(WORDS)}, and all fields text.")
        if label.key != key_of(asdict(label)):
            raise UserError(f"{path}, line {number}: `key` does not fit row_id and negative. Remove the line.")
        found.append(label)
    return found


def settled(labels: Sequence[Label]) -> dict[str, bool]:
    """What people agree on, by key: whether the negative is true."""
    latest: dict[str, dict[str, str]] = defaultdict(dict)
    for label in labels:
        latest[label.key][label.who] = label.label
    found = {}
    for key, said in latest.items():
        counts = Counter(said.values())
        if counts["true"] != counts["false"]:
            found[key] = counts["true"] > counts["false"]
    return found


def labels_input(config: AuditConfig) -> list[Path]:
    """The labels file as an input of a stage: itself, or nothing while nobody has labelled."""
    path = Path(config.labels)
    return [path] if path.is_file() else []


def append_label(path: Path, row: Row, word: str, who: str) -> Label:
    """Add one line and see it onto the disk before returning."""
    label = Label(
        key_of(row), row["row_id"], row["negative"], word, who, datetime.now(UTC).isoformat(timespec="seconds")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(label), ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return label


def queue(judged: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Which judged negatives a person is shown, and in which order: the same for a seed, whatever is labelled already.

    Some are negatives on which a witness speaks, the others silent ones in equal numbers of each edit. They come mixed,
    and nothing shown tells which is which. A longer queue begins with the same negatives for each verdict and edit.
    """

    def draw(row: Row) -> str:
        return hashlib.sha256(f"label {seed} {key_of(row)}".encode()).hexdigest()

    spoken = sorted((row for row in judged if any(row[name] for name in WITNESSES)), key=draw)
    silent: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(judged, key=draw):
        if not any(row[name] for name in WITNESSES):
            silent[row["edit"]].append(row)
    chosen = spoken[: min(max(SPOKEN_LABELS, count // 5), count)]
    turn = 0
    while len(chosen) < count and any(turn < len(rows) for rows in silent.values()):
        chosen += [silent[edit][turn] for edit in sorted(silent) if turn < len(silent[edit])][: count - len(chosen)]
        turn += 1
    return sorted(chosen, key=draw)
