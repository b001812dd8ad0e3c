"""Checks of a record become Dagster check results: severity, counts, examples, and nothing that fails is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data.record import Record
from orchestration import checks

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def _check(name: str, passed: bool, severity: str = "critical", **more: Any) -> dict[str, Any]:
    body = {"description": f"{name} holds.", "count": 0, "examples": [], "metadata": {}}
    return {"name": name, "passed": passed, "severity": severity, **body, **more}


def _record(*found: dict[str, Any]) -> Record:
    return Record(
        kind="toy", stage="toy", command="toy", inputs=[], outputs=[], parameters={}, seeds={}, summary={},
        checks=list(found), pictures={}, tables={},
    )  # fmt: skip


def _by_name(record: Record, *declared: str) -> dict[str, dg.AssetCheckResult]:
    return {str(result.check_name): result for result in checks.results(record, ["record", *declared])}


@pytest.mark.parametrize(("severity", "expected"), [("critical", ERROR), ("warning", WARN), ("info", WARN)])
def test_severities(severity: str, expected: dg.AssetCheckSeverity) -> None:
    result = _by_name(_record(_check("a", False, severity)), "a")["a"]
    assert result.severity is expected
    assert not result.passed


def test_counts_examples_and_measures_are_shown() -> None:
    broken = _check("a", False, count=25, examples=[f"row-{i}" for i in range(20)], metadata={"share": 0.02})
    result = _by_name(_record(broken), "a")["a"]
    assert result.description == "a holds. (25 at fault)"
    assert result.metadata["count"].value == 25
    assert str(result.metadata["examples"].value).split(", ") == [f"row-{i}" for i in range(20)]
    assert result.metadata["share"].value == 0.02


def test_a_declared_check_that_a_record_lacks_did_not_apply() -> None:
    result = _by_name(_record(), "drift")["drift"]
    assert result.passed
    assert result.description == "Did not apply to this output."


@pytest.mark.parametrize(("severity", "expected"), [("critical", ERROR), ("warning", WARN)])
def test_a_failed_check_that_nobody_announced_fails_the_record_check(severity: str, expected: Any) -> None:
    result = _by_name(_record(_check("a", True), _check("surprise", False, severity)), "a")["record"]
    assert not result.passed
    assert result.severity is expected
    assert "surprise holds." in str(result.description)


def test_an_announced_failure_does_not_fail_the_record_check() -> None:
    assert _by_name(_record(_check("a", False)), "a")["record"].passed


def test_names_are_found_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(
        'def build(run):\n    run.check("direct", True, severity="info", description="")\n'
        '    run.check(**{"name": "in_a_dict", "passed": True})\n'
        '    run.check(**dict(name="in_a_call", passed=True))\n'
        '    run.check(f"{run}_share", True)\n    other({"name": "no_check"}, name="neither")\n',
        encoding="utf-8",
    )
    assert checks.in_code(tmp_path) == {"direct", "in_a_dict", "in_a_call"}


def test_names_that_dagster_does_not_take_are_adapted() -> None:
    (first, second) = checks.specs("a/b", {"R@10 of t2i": "Recall."}, blocking=True)
    assert (first.name, second.name, second.description) == ("record", "R_10_of_t2i", "Recall.")
    assert _by_name(_record(_check("R@10 of t2i", False)), "R_10_of_t2i")["R_10_of_t2i"].passed is False
