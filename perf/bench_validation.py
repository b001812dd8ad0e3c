"""P9: the rules over a million rows, against Great Expectations over all of them.

Both sides get the same table in memory, in the form each likes best, and the same stock expectations; the peer keeps
its default result format, which names twenty offending values, where ours names every offending row.
"""

from __future__ import annotations

import csv
import time

import numpy as np
import pyarrow as pa

from data import expectations, schema
from data.expectations import Picture, Rule, Thresholds
from data.gx import Suite
from data.land import picture_table
from perf.bench import ROOT, Row, paired, speed_row

RULES = (
    "image_present", "image_not_blank", "image_usual_size", "id_unique", "id_well_formed", "gender_filled",
    "gender_known", "article_type_filled", "article_type_known", "base_colour_known", "year_is_year", "title_length",
)  # fmt: skip
FAULTS = 0.01  # share of the rows that each planted fault spoils
SUMMARY = {"result_format": "SUMMARY"}


def rows(size: int) -> pa.Table:
    """`size` rows of the starter catalog's text with ids of their own, and faults of four kinds planted at random."""
    with (ROOT / "data/starter/drop-1/catalog.csv").open(encoding="utf-8", newline="") as stream:
        source = list(csv.DictReader(stream))
    names = schema.find_columns(source[0])
    rng = np.random.default_rng(0)
    pick = pa.array(rng.integers(0, len(source), size))
    table = {name: pa.array([row[spelled] for row in source]).take(pick) for name, spelled in names.items()}
    plant = {
        "id": lambda spoiled: [f"{n:07d}" for n in spoiled // 2],
        "gender": lambda spoiled: np.full(len(spoiled), ""),
        "base_colour": lambda spoiled: np.full(len(spoiled), "Zebra"),
        "title": lambda spoiled: np.full(len(spoiled), "x" * 400),
    }
    table["id"] = pa.array([f"{n:07d}" for n in range(size)])
    for name, faults in plant.items():
        values = np.array(table[name].to_pylist(), dtype=object)
        spoiled = np.flatnonzero(rng.random(size) < FAULTS)
        values[spoiled] = faults(spoiled)
        table[name] = pa.array(values, pa.string())
    return pa.table(table)


def pictures(size: int) -> pa.Table:
    """Facts of `size` sound pictures of which every hundredth is blank."""
    held = picture_table([Picture(bytes=900, width=60, height=80, mode="RGB", grey_std=60.0)])
    table = {name: pa.repeat(held[name][0], size) for name in held.column_names}
    spread = np.full(size, 60.0)
    spread[::100] = 1.0
    return pa.table(table | {"grey_std": spread, "key": [f"{n:08x}" for n in range(size)]})


def run(smoke: bool) -> list[Row]:
    size = 200_000 if smoke else 1_000_000
    text, looks = rows(size), pictures(size)
    begun = time.perf_counter()
    table = expectations.frame(text, looks)
    framed = time.perf_counter() - begun
    every = expectations.rules(Thresholds())
    found = []
    for what, rules, floor in (
        # below a million rows the fixed cost of Great Expectations decides, which both sides pay
        (f"{len(RULES)} stock rules", [rule for rule in every if rule.name in RULES], None if smoke else 6.0),
        (f"all {len(every)} rules", every, None),
    ):
        found.append(_against_default(what, rules, table, size, floor, smoke))
    begun = time.perf_counter()
    Suite("bench", every).run(expectations.frame(text, looks))
    whole = time.perf_counter() - begun
    row = found[-1]
    note = f"; with its frame ({framed:.1f} s) and start: {size / whole:,.0f} rows/s"
    return [*found[:-1], Row(**{**vars(row), "check": row.check + note})]


def _against_default(what: str, rules: list[Rule], table: pa.Table, size: int, floor: float | None, smoke: bool) -> Row:
    whole = table.select(sorted({name for rule in rules for name in rule.looks_at})).to_pandas()
    suite, peer = Suite("ours", rules), Suite("default", rules)
    mine = {finding.rule.name: finding.count for finding in suite.run(table)}
    theirs = {name: item.result["unexpected_count"] for name, item in peer.judge(whole, SUMMARY).items()}
    same = mine == theirs
    pairs = paired(lambda: suite.run(table), lambda: peer.judge(whole, SUMMARY), 3 if smoke else 5, warm=0)
    return speed_row(
        pairs, size, id="P9", what=f"{size:,} rows, {what}", peer="Great Expectations over all rows", unit="rows/s",
        floor=floor, check=f"{sum(map(bool, mine.values()))} rules broken, counts {'equal' if same else 'DIFFER'}",
        fair=same,
    )  # fmt: skip
