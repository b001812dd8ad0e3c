"""The share of hard negatives that are in fact true of their product, with a bound, edit by edit and in all.

A fixed number of negatives of each edit is drawn and judged. A negative counts as true if a person labelled it so, or,
unlabelled, if any witness speaks (witnesses.py). With no labels the estimate is the share the witnesses see, its bound
Wilson's. Labels correct it as in double sampling (Cochran 1977, §12.2): once enough of the drawn negatives on which the
witnesses are silent (or speak) are labelled, the share of true ones among the labelled stands for all such negatives,
which is what the correction of Rogan and Gladen (1978) comes to when labels are drawn by verdict and not by truth. The
parts of the estimate are put together by their weights in the whole set (intervals.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data.negatives.intervals import Interval, Stratum, double_sample, effective, weighted_sum, wilson
from data.negatives.witnesses import WITNESSES, Witnesses

Row = Mapping[str, Any]
SILENT_LABELS = 200  # labels that stand for all negatives on which no witness speaks: of 200 false, at most 1.9 % true
SPOKEN_LABELS = 20  # labels that stand for all those on which one speaks
SCHEMA = pa.schema([
    ("row_id", pa.string()), ("caption_kind", pa.string()), ("edit_type", pa.string()), ("edit", pa.string()),
    ("caption", pa.string()), ("negative", pa.string()), ("verdict", pa.string()), ("label", pa.string()),
    *((name, pa.string()) for name in WITNESSES),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Section `negatives.audit` of params.yaml.

    `per_edit`: negatives judged of each edit. `max_error`: the largest upper bound on the share of true ones; a true
    negative is a coin's toss to a model that sees well, so 0.02 moves a benchmark by at most the gate's margin of 0.01.
    `seed`: draws the negatives. `labels`: the file of people's labels.
    """

    per_edit: int = 1000
    max_error: float = 0.02
    seed: int = 31
    labels: str = "data/labels/negatives.jsonl"

    def __post_init__(self) -> None:
        if self.per_edit < 1:
            raise ValueError("per_edit must be at least 1")
        if not 0 < self.max_error < 1:
            raise ValueError("max_error is a share; it must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged negative: {witness: why} of the witnesses that hold it for true, and a person's word, if any."""

    row: Row
    witnesses: Mapping[str, str]
    label: bool | None = None

    @property
    def true(self) -> bool:
        """Whether the negative counts as true of its product."""
        return bool(self.witnesses) if self.label is None else self.label


@dataclass(frozen=True, slots=True)
class Part:
    """The estimate of one edit (or of all): its share and limits, and the counts behind it."""

    edit: str
    negatives: int
    judged: int
    true: int
    labelled: int
    error: Interval
    by_witness: Mapping[str, int]

    @property
    def bound(self) -> float:
        """What is held against the limit: the upper end of the interval, or the share itself where every negative was
        judged, as in a small catalog, and no sample stands for others."""
        return self.error.share if self.judged == self.negatives else self.error.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of the whole set, and of each edit."""

    whole: Part
    edits: tuple[Part, ...]

    def table(self) -> list[dict[str, Any]]:
        """One row per edit and one for all: counts, true ones by witness, share and limits."""
        return [
            {"edit": part.edit, "negatives": part.negatives, "judged": part.judged, "true": part.true,
             **{name: part.by_witness[name] for name in WITNESSES}, "labelled": part.labelled,
             "share": round(part.error.share, 5), "low": round(part.error.low, 5), "high": round(part.error.high, 5)}
            for part in (self.whole, *self.edits)
        ]  # fmt: skip


def key_of(row: Row) -> str:
    """What a label is found by: 16 hex digits over row id and negative."""
    return hashlib.sha256(f"{row['row_id']}\0{row['negative']}".encode()).hexdigest()[:16]


def sample(negatives: Iterable[Row], per_edit: int, seed: int) -> list[Row]:
    """At most `per_edit` negatives of each edit, drawn by a hash of seed and negative: the same whatever the order."""
    by_edit: dict[str, list[tuple[str, str, Row]]] = defaultdict(list)
    for row in negatives:
        key = key_of(row)
        by_edit[row["edit"]].append((hashlib.sha256(f"{seed} {key}".encode()).hexdigest(), row["caption_kind"], row))
    drawn = []
    for edit in sorted(by_edit):
        drawn += [row for *_, row in sorted(by_edit[edit], key=lambda entry: entry[:2])[:per_edit]]
    return drawn


def judge(rows: Sequence[Row], witnesses: Witnesses, labels: Mapping[str, bool] | None = None) -> list[Verdict]:
    """A verdict on each row, in order. `labels` are people's words by `key_of`."""
    held = labels or {}
    return [Verdict(row, why, held.get(key_of(row))) for row, why in zip(rows, witnesses.ask(rows), strict=True)]


def estimate(verdicts: Iterable[Verdict], population: Mapping[str, int]) -> Estimate:
    """The share of true negatives.

    Args:
        verdicts: judged negatives, drawn at random within each edit.
        population: how many negatives there are of each edit; one that nobody judged may be true altogether.
    """
    judged: dict[str, list[Verdict]] = {edit: [] for edit in sorted(population)}
    for verdict in verdicts:
        judged[verdict.row["edit"]].append(verdict)
    everything = [verdict for group in judged.values() for verdict in group]
    total = max(1, sum(population.values()))
    parts = [_part(edit, population[edit], group, wilson(_true(group), len(group))) for edit, group in judged.items()]
    error = weighted_sum([part.error for part in parts], [part.negatives / total for part in parts])
    error = _corrected(judged, {part.edit: part.negatives / total for part in parts}) or error
    return Estimate(_part("all", sum(population.values()), everything, error), tuple(parts))


def table(verdicts: Iterable[Verdict]) -> pa.Table:
    """The rows of `audit.parquet`: every judged negative with what each witness said and the verdict."""
    words = {True: "true", False: "false", None: None}
    rows = [
        {**{name: verdict.row[name] for name in SCHEMA.names[:6]}, "verdict": words[verdict.true],
         "label": words[verdict.label], **{name: verdict.witnesses.get(name) for name in WITNESSES}}
        for verdict in verdicts
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _corrected(judged: Mapping[str, Sequence[Verdict]], weights: Mapping[str, float]) -> Interval | None:
    """The share in all as the labels have it, None while there are too few of them.

    The strata are the negatives on which a witness speaks and those on which none does. Labels are drawn edit by edit,
    so in a stratum each counts for as much of the whole set as it stands for.
    """
    strata = []
    enough = False
    for speaks, least in ((True, SPOKEN_LABELS), (False, SILENT_LABELS)):
        groups = {e: [v for v in group if bool(v.witnesses) == speaks] for e, group in judged.items()}
        mass = {edit: weights[edit] * len(group) / len(judged[edit]) for edit, group in groups.items() if group}
        labelled = {edit: [v for v in groups[edit] if v.label is not None] for edit in mass}
        count, members = sum(map(len, labelled.values())), sum(map(len, groups.values()))
        if members and count >= min(least, members):
            enough = True
            part = {edit: mass[edit] / len(found) for edit, found in labelled.items() if found}
            each = [part[edit] for edit in part for _ in labelled[edit]]
            size = effective(each)
            share = sum(part[edit] * _true(labelled[edit]) for edit in part) / sum(each)
            strata.append(Stratum(sum(mass.values()), wilson(share * size, size), 1 - count / members))
        elif members:
            share = sum(mass[edit] * _true(groups[edit]) / len(groups[edit]) for edit in mass) / sum(mass.values())
            strata.append(Stratum(sum(mass.values()), Interval(share, share, share), 0.0))
    if not enough:
        return None
    return double_sample(strata, effective(weights[e] / len(group) for e, group in judged.items() for _ in group))


def _true(verdicts: Iterable[Verdict]) -> int:
    return sum(verdict.true for verdict in verdicts)


def _part(edit: str, negatives: int, verdicts: Sequence[Verdict], error: Interval) -> Part:
    spoken = Counter(name for verdict in verdicts for name in verdict.witnesses)
    labelled = sum(verdict.label is not None for verdict in verdicts)
    return Part(edit, negatives, len(verdicts), _true(verdicts), labelled, error, {n: spoken[n] for n in WITNESSES})
