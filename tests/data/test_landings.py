"""Warnings of the landings travel with the dataset to the page of a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.landings import STATISTICS, landings, of_dataset, warnings
from training.verdict_page import _data_text


def drop(folder: Path, **report: Any) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"drop_id": folder.name, "landed": 1} | report), encoding="utf-8")
    return folder


def test_warnings_of_all_drops_are_counted_and_shown(tmp_path: Path) -> None:
    drift = [{"feature": "year", "passed": False}, {"feature": "gender", "passed": True}]
    one = {"title_length": 3, "usage_known": 1}
    found = landings([
        drop(tmp_path / "a", name="first", rows=100, quarantined=2, warnings_by_rule=one),
        drop(tmp_path / "b", name="second", rows=50, quarantined=0, warnings_by_rule={"usage_known": 4}, drift=drift),
        drop(tmp_path / "c"),  # a report of before there was anything to carry
    ])  # fmt: skip
    assert warnings(found) == [
        {"warning": "drift_year", "rows": 50, "drops": 1},
        {"warning": "usage_known", "rows": 5, "drops": 2},
        {"warning": "title_length", "rows": 3, "drops": 1},
    ]
    (tmp_path / STATISTICS).write_text(json.dumps({"landings": found}), encoding="utf-8")
    heading, table = _data_text(of_dataset(tmp_path))
    assert "3 landed drop(s), 150 rows, of which 2 were refused" in heading
    assert "| usage_known | 5 | 2 |" in table


def test_a_dataset_without_them_shows_nothing(tmp_path: Path) -> None:
    assert of_dataset(tmp_path) == []
    assert _data_text([]) == []
