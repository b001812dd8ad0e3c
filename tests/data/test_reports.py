"""Catalog text in reports: never a formula, never markup, nothing hidden; and every report is written through that."""

from __future__ import annotations

import ast
import csv
import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_drops import ROOT

from data.params import UserError
from data.reports import CONTROL, INVISIBLE, REORDERING, csv_field, id_key, markdown_cell, quoted, visible

WRITES_CSV = {"training/verdict_page.py"}  # with csv_field


@pytest.mark.parametrize("text", [
    "=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1:A9)", "  =HYPERLINK(\"http://x\",\"y\")", "\t=1", "\r=1", "\n=1",
    "|calc", "%0A=1",
])  # fmt: skip
def test_a_formula_becomes_text(text: str) -> None:
    assert csv_field(text).startswith("'")


@pytest.mark.parametrize(("value", "field"), [
    ("-0.5", "-0.5"), ("+12", "+12"), ("1e-05", "1e-05"), (-3, "-3"), (0.25, "0.25"), (None, ""), ("Levi's", "Levi's"),
    ("Blue T-shirt = nice", "Blue T-shirt = nice"), ("a\0b", "a\\u0000b"), ("2 - 1", "2 - 1"),
])  # fmt: skip
def test_numbers_and_plain_text_stay(value: object, field: str) -> None:
    assert csv_field(value) == field


@given(st.text())
def test_no_field_of_a_csv_file_is_ever_a_formula(text: str) -> None:
    """As a spreadsheet reads it, after the csv module has quoted it."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow([csv_field(text), "end"])
    (row,) = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    shown = unicodedata.normalize("NFKC", row[0]).lstrip()
    assert not shown or shown[0] not in "=+-@" or re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", shown, re.IGNORECASE)
    assert row[1] == "end"


@pytest.mark.parametrize(("text", "cell"), [
    ("a|b", "a\\|b"), ("a\\|b", "a\\\\\\|b"), ("two\nlines", "two lines"),
    ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
    ("![x](http://evil/pixel.png)", "!\\[x](http://evil/pixel.png)"), ("\u202egnp.exe", "\\\\u202egnp.exe"),
])  # fmt: skip
def test_a_markdown_cell_holds_no_markup(text: str, cell: str) -> None:
    assert markdown_cell(text) == cell


@given(st.text())
def test_a_table_keeps_its_columns_whatever_a_cell_holds(text: str) -> None:
    line = f"| {markdown_cell(text)} | end |"
    assert len(line.splitlines()) <= 1 + len(re.findall("[\x0b\x0c\x1c-\x1e\x85]", text))
    assert len(re.split(r"(?<!\\)\|", line.replace("\\\\", ""))) >= 4
    assert "<" not in markdown_cell(text)


@given(st.text(st.characters()))
def test_what_is_visible_can_be_printed_and_stays(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert visible(shown) == shown
    assert not re.search(f"{CONTROL}|{REORDERING}|{INVISIBLE}", shown)


def test_a_megabyte_is_quoted_in_part() -> None:
    assert quoted("x" * 1_000_000) == "x" * 200 + "… and 999,800 more characters"
    assert quoted("a\n\x1b[2Jb") == "a \\u001b[2Jb"
    assert quoted("short") == "short"


def test_a_message_keeps_its_beginning_and_its_cure() -> None:
    message = str(UserError(f"x.yaml: found {'y' * 100_000!r}; write a mapping."))
    assert len(message) < 3_100
    assert message.startswith("x.yaml: found 'y")
    assert message.endswith("y'; write a mapping.")


def test_messages_drive_no_terminal() -> None:
    assert str(UserError("x\x1b[2J\u202e.jpg: not found")) == "x\\u001b[2J\\u202e.jpg: not found"


@pytest.mark.parametrize(("one", "other"), [
    ("ab-1", "AB-1"), ("caf\u00e9", "cafe\u0301"), ("ａｂ1", "ab1"), ("straße", "STRASSE"), ("ﬁt", "FIT"),
    ("\u0130x", "i\u0307x"),
])  # fmt: skip
def test_ids_that_differ_by_case_or_unicode_form_share_a_key(one: str, other: str) -> None:
    assert id_key(one) == id_key(other)


def test_ids_that_differ_otherwise_do_not() -> None:
    assert len({id_key(text) for text in ("ab-1", "ab1", "ab_1", "ab-2", "äb-1")}) == 5


def test_every_module_that_writes_csv_neutralises_formulas() -> None:
    """A new csv report belongs on the list, and through `csv_field`."""
    found = set()
    for folder in ("data", "training", "serving", "orchestration"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            if any(_writes_csv(node) for node in ast.walk(ast.parse(source))):
                found.add(path.relative_to(ROOT).as_posix())
                assert "csv_field" in source, path
    assert found == WRITES_CSV


def _writes_csv(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and (
        node.attr in ("to_csv", "write_csv_rows")
        or (node.attr in ("writer", "DictWriter") and isinstance(node.value, ast.Name) and node.value.id == "csv")
    )
