"""Hostile tables, landed: rows quarantined by rule or accepted safely, and drops refused with line and cure."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_drops import Built, build, tree

from data import hostile, reports
from data.drops import read_drop
from data.land import land
from data.params import UserError

MEGABYTE = "x" * 1_000_000
TAGS = "".join(chr(0xE0000 + ord(letter)) for letter in "ignore")
PERSIAN = "\u0644\u0628\u0627\u0633\u200c\u0647\u0627\u06cc \u0622\u0628\u06cc"
QUARANTINED: dict[str, tuple[str, str, list[str]]] = {
    "megabyte caption": ("derived_caption", MEGABYTE, ["text_length"]),
    "megabyte title": ("productDisplayName", MEGABYTE, ["text_length"]),
    "NUL byte": ("productDisplayName", "Blue\0shirt", ["text_control"]),
    "terminal escape": ("productDisplayName", "Blue \x1b[2Jshirt", ["text_control"]),
    "NUL in an attribute": ("season", "Fall\0", ["text_control"]),
    "right-to-left override": ("productDisplayName", "Blue \u202etrihs\u202c", ["text_reordered"]),
    "right-to-left isolate": ("usage", "\u2067Casual\u2069", ["text_reordered"]),
    "tag characters": ("productDisplayName", f"Shirt {TAGS}", ["text_reordered"]),
    "script": ("productDisplayName", "<script>alert(1)</script>", ["text_script"]),
    "id with a newline": ("id", "12\n34", ["id_well_formed"]),
    "id that is a path": ("id", "../../x", ["id_well_formed"]),
    "id that is a formula": ("id", "=1+1", ["id_well_formed"]),
    "id twin in lower case": ("id", "ab-1", ["id_distinct"]),
    "id twin in upper case": ("id", "AB-1", ["id_distinct"]),
    "id twin in full width": ("id", "\uff41\uff42-1", ["id_distinct", "id_well_formed"]),
    "id twin composed": ("id", "caf\u00e9", ["id_distinct", "id_well_formed"]),
    "id twin decomposed": ("id", "cafe\u0301", ["id_distinct", "id_well_formed"]),
}  # fmt: skip
ACCEPTED: dict[str, tuple[str, str, str]] = {  # column, value, the warning it carries if any
    "right-to-left mark": ("productDisplayName", "Blue \u200fshirt\u200f", "text_invisible"),
    "zero width space": ("productDisplayName", "Blue\u200bshirt", "text_invisible"),
    "byte order mark within": ("productDisplayName", "Blue \ufeffshirt", "text_invisible"),
    "Persian with a joiner": ("productDisplayName", PERSIAN, ""),
    "emoji of four": ("productDisplayName", "Blue shirt \U0001f468\u200d\U0001f469\u200d\U0001f467", ""),
    "formula": ("productDisplayName", '=HYPERLINK("http://evil","Blue shirt")', ""),
    "DDE formula": ("productDisplayName", "@SUM(1+9)*cmd|' /C calc'!A0", ""),
    "decomposed title": ("productDisplayName", "Blue cafe\u0301 shirt", ""),
}  # fmt: skip
KINDS = [*QUARANTINED, *ACCEPTED]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of every row, by what it held, and the landing's files."""

    products: dict[str, dict[str, Any]]
    quarantine: dict[str, dict[str, Any]]
    report: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module", params=["csv", "jsonl", "parquet"])
def outcome(
    request: pytest.FixtureRequest, fresh_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """All hostile texts in one drop, among good rows."""
    built = build(len(KINDS) + 10)
    for row in built.rows:
        row["derived_caption"] = ""
    for row, name in zip(built.rows, KINDS, strict=False):
        column, value, _ = {**QUARANTINED, **ACCEPTED}[name]
        row[column] = value
    folder = tmp_path_factory.mktemp("tables")
    shutil.copytree(fresh_repository, folder / "repository")
    with contextlib.chdir(folder / "repository"):
        (landing,) = land([built.write(folder / "drop", request.param)])
        lines = read_drop(folder / "drop").table.lines.tolist()
        names = dict(zip(lines, KINDS, strict=False))
        found = [
            {names.get(row["row"], str(row["row"])): row for row in pq.read_table(landing.folder / file).to_pylist()}
            for file in ("products.parquet", "quarantine.parquet")
        ]
        return Outcome(*found, report=dict(landing.report), folder=landing.folder.resolve())


@pytest.mark.parametrize("name", QUARANTINED)
def test_a_hostile_text_is_quarantined_by_its_rule(outcome: Outcome, name: str) -> None:
    row = outcome.quarantine[name]
    column, value, rules = QUARANTINED[name]
    assert sorted(row["reasons"]) == sorted(rules)
    kept = {"productDisplayName": "title"}.get(column, column)
    assert row[kept] == value
    for message in row["messages"]:
        assert len(message) < 600
        assert message == reports.visible(message)


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_text_is_accepted_as_it_is(outcome: Outcome, name: str) -> None:
    assert outcome.products[name]["title"] == ACCEPTED[name][1]
    warned = {rule["name"] for rule in outcome.report["rules"] if outcome.products[name]["id"] in rule["examples"]}
    assert {rule for rule in warned if rule.startswith("text_")} == {ACCEPTED[name][2]} - {""}


def test_good_rows_beside_hostile_ones_land(outcome: Outcome) -> None:
    assert len(outcome.quarantine) == len(QUARANTINED)
    assert len(outcome.products) == len(ACCEPTED) + 10


def test_no_page_or_report_runs_hides_or_repeats_a_megabyte(outcome: Outcome) -> None:
    for page in [*(outcome.folder / "docs").iterdir(), outcome.folder / "report.json", outcome.folder / "record.json"]:
        text = page.read_text(encoding="utf-8")
        assert len(text) < 1_000_000, page
        assert "x" * 5_000 not in text, page
        assert "<script" not in text.lower() or page.suffix == ".json", page
        assert "\0" not in text, page
        assert "\u202e" not in text, page
    findings = pq.read_table(outcome.folder / "findings.parquet")
    assert max(len(value or "") for value in findings["value"].to_pylist()) < 1_000


def test_a_csv_report_of_these_titles_holds_no_formula(outcome: Outcome) -> None:
    for name in ("formula", "DDE formula"):
        assert reports.csv_field(outcome.products[name]["title"]) == "'" + ACCEPTED[name][1]


def replace(name: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(old, new, 1))


def repeated(kind: str, size: int, times: int) -> pa.Array:
    """A column of one value, `times` times; parquet keeps it once."""
    value = pa.array([os.urandom(size) if kind == "image" else "x" * size])
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), value)


def table_bomb(folder: Path) -> None:
    rows = pa.table(
        {
            **{name: repeated("text", 1, 20_000) for name in build(1).rows[0]},
            "season": repeated("text", 100_000, 20_000),
        }
    )
    pq.write_table(rows, folder / "catalog.parquet")


def shard_bomb(folder: Path) -> None:
    ids = pa.array([str(i) for i in range(20_000)])
    table = pa.table({"id": ids, "image": repeated("image", 100_000, 20_000)})
    pq.write_table(table, folder / "more.parquet", store_schema=False)  # a reader sees plain bytes


def invalid_text(folder: Path) -> None:
    """Half a character in a parquet file, which its writer did not look at."""
    table = pq.read_table(folder / "catalog.parquet")
    values = pa.array([b"\xed\xa0\x80"] * len(table), pa.binary()).view(pa.string())
    table = table.set_column(table.column_names.index("productDisplayName"), "productDisplayName", values)
    pq.write_table(table, folder / "catalog.parquet")


def mapping(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "mapping.yaml").write_text(text)


CSV, JSONL = "catalog.csv", "catalog.jsonl"
DEEP = b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LONG = b"x" * 17_000_000
OUT = ["line 2", "`image`", "out of the drop"]
REFUSED: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "lone surrogate in csv": ("csv", replace(CSV, b"Puma", b"\xed\xa0\x80"), [CSV, "UTF-8", "line"]),
    "lone surrogate in jsonl": ("jsonl", replace(JSONL, b"Puma", b"\\ud800"), ["line 1", "half a Unicode", "mend"]),
    "lone surrogate in parquet": ("parquet", invalid_text, ["catalog.parquet", "UTF8", "copy it again"]),
    "UTF-16": ("csv", lambda f: (f / CSV).write_text("id,title", encoding="utf-16"), ["UTF-8", "save it"]),
    "nested JSON": ("jsonl", replace(JSONL, b"{", DEEP + b"\n{"), ["line 1", "not valid JSON"]),
    "huge number in JSON": ("jsonl", replace(JSONL, b'"00007"', b"9" * 5_000), ["line 1", "not valid JSON"]),
    "field of 17 megabytes in csv": ("csv", replace(CSV, b"Puma", LONG), ["line 2", "field", "16777216"]),
    "field of 17 megabytes in jsonl": ("jsonl", replace(JSONL, b"Puma", LONG), ["line 1", "17,0", "16,777,216"]),
    "parquet table bomb": ("csv", lambda f: [(f / CSV).unlink(), table_bomb(f)], ["catalog.parquet", "parquet bomb"]),
    "parquet shard bomb": ("csv", shard_bomb, ["more.parquet", "parquet bomb"]),
    "column name of a megabyte": ("csv", replace(CSV, b"gender", MEGABYTE.encode()), ["`gender`", "missing"]),
    "escape in a column name": ("csv", replace(CSV, b"gender", b"\x1b[2J"), ["`gender`", "missing"]),
    "path out of the drop": ("csv", replace(CSV, b"00007.jpg", b"../../../etc/passwd"), OUT),
    "absolute path": ("csv", replace(CSV, b"00007.jpg", b"/etc/passwd"), OUT),
    "path with a NUL": ("csv", replace(CSV, b"00007.jpg", b"00007.jpg\0.png"), OUT),
    "mapping that unfolds": ("csv", mapping("columns: &a {x: *a}"), ["mapping.yaml", "aliases"]),
    "mapping with an object": ("csv", mapping("catalog: !!python/object/apply:os.system [id]"), ["mapping.yaml"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_table_refuses_the_drop(repository: Path, tmp_path: Path, name: str) -> None:
    table, change, words = REFUSED[name]
    folder = build().write(tmp_path / "drop", table)
    change(folder)
    before = tree(tmp_path)
    with pytest.raises(UserError) as caught:
        land([folder])
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert len(message) < 2_000
    assert message == reports.visible(message).replace("\n", " ")
    assert tree(tmp_path) == before


def test_a_parquet_file_of_too_many_rows_is_not_read(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "MAX_ROWS", 11)
    with pytest.raises(UserError, match=r"catalog\.parquet: claims 12 rows, more than 11"):
        read_drop(built.write(tmp_path / "drop", "parquet"))


def test_repeated_values_within_reason_are_read(built: Built, tmp_path: Path) -> None:
    """A dictionary is what parquet is for: a shop's 100,000 rows with few distinct texts."""
    rows = [{**built.rows[0], "id": f"{i:06d}", "image": ""} for i in range(100_000)]
    folder = tmp_path / "drop"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "catalog.parquet")
    assert len(read_drop(folder)) == 100_000


def test_json_text_is_kept_as_it_was_written(built: Built, tmp_path: Path) -> None:
    """Escapes of whole characters, astral ones among them, are no lone surrogates."""
    built.rows[0]["productDisplayName"] = "\U0001f457 dress"
    folder = built.write(tmp_path / "drop", "jsonl")
    text = (folder / "catalog.jsonl").read_text(encoding="utf-8")
    lines = [json.dumps(json.loads(line), ensure_ascii=True) for line in text.splitlines()]
    assert "\\ud83d\\udc57" in lines[0]
    (folder / "catalog.jsonl").write_text("\n".join(lines))
    assert read_drop(folder).table.columns["title"][0] == "\U0001f457 dress"


def test_a_mapping_from_outside_writes_no_markup_into_the_pages(built: Built, repository: Path, tmp_path: Path) -> None:
    """Its vocabulary is shown on the page of the rules, values outside it on that of the results."""
    markup = "<svg onload=alert(1)>"
    built.rows[0]["season"] = markup
    folder = built.write(tmp_path / "drop")
    (folder / "mapping.yaml").write_text(json.dumps({"vocabulary": {"season": ["Fall", markup], "gender": [markup]}}))
    (landing,) = land([folder])
    for page in (landing.folder / "docs").iterdir():
        assert "<svg onload" not in page.read_text(encoding="utf-8"), page
