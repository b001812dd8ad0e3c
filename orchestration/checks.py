"""Checks in lineage records (Great Expectations rules, audits, verdicts) as Dagster asset checks.

Dagster wants the names of an asset's checks before it runs. They are read where they are written down: in the record of
its last run, and before the first one in the stage's code. One more check, `record`, is always there: it lists every
check of the record, and fails if one failed that nobody announced.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from data.record import RECORD, Record
from orchestration import render
from orchestration.stages import Graph, Stage

INTEGRITY = "record"
NON_BLOCKING_GROUPS = frozenset({"verdicts"})  # promotion itself demands the verdict of the one model it takes
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]+")


def stage_specs(graph: Graph, stage: Stage) -> list[dg.AssetCheckSpec]:
    """The checks of a stage's asset, known without running or importing the stage."""
    announced = in_record(graph.root / stage.out)
    if announced is None:
        announced = dict.fromkeys(name for dep in graph.code(stage) for name in in_code(graph.root / dep))
    return specs(stage.asset, announced, blocking=stage.group not in NON_BLOCKING_GROUPS)


def specs(asset: str, announced: Mapping[str, str | None], *, blocking: bool) -> list[dg.AssetCheckSpec]:
    """One spec per {name: description}, and `record`. A blocking check stops what follows only if it is critical."""
    key = dg.AssetKey(asset.split("/"))
    found = {check_name(name): description for name, description in announced.items()}
    found[INTEGRITY] = "The lineage record matches its id, and no check in it failed that is not listed here."
    return [
        dg.AssetCheckSpec(name, asset=key, description=found[name], blocking=blocking)
        for name in sorted(found, key=lambda name: (name != INTEGRITY, name))
    ]


def results(record: Record, declared: Iterable[str]) -> list[dg.AssetCheckResult]:
    """One result per declared check, from the record's outcomes."""
    outcomes = {check_name(check["name"]): check for check in record.checks}
    announced = [name for name in declared if name != INTEGRITY]
    rest = [check for name, check in outcomes.items() if name not in announced]
    return [_integrity(record, rest), *(_result(name, outcomes.get(name)) for name in announced)]


def check_name(name: str) -> str:
    """A rule's name with everything but letters, digits and underscores replaced, as Dagster demands."""
    return _NOT_A_NAME.sub("_", name).strip("_")


def in_code(path: Path) -> set[str]:
    """The check names that a file, or the files of a package, write out: see `_announced`."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return {name for file in files if file.suffix == ".py" for name in _names(file.read_text(encoding="utf-8"))}


def in_record(folder: Path) -> dict[str, str | None] | None:
    """{name: description} of the checks of the last run; None where there is no readable record."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))["checks"]
        return {check["name"]: check["description"] for check in found}
    except (OSError, ValueError, KeyError, TypeError):
        return None


@functools.cache
def _names(code: str) -> frozenset[str]:
    if ".check(" not in code and "passed" not in code:  # most files, which then need no parsing
        return frozenset()
    return frozenset(name for node in ast.walk(ast.parse(code)) if (name := _announced(node)) is not None)


def _announced(node: ast.AST) -> str | None:
    """The name in `run.check("name", ...)`, or in the arguments of such a call: `{"name": "name", "passed": ...}`."""
    name: ast.expr | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "check":
        name = next(iter(node.args), None)
    elif isinstance(node, ast.Dict):
        values = {key.value: value for key, value in zip(node.keys, node.values, strict=True)
                  if isinstance(key, ast.Constant)}  # fmt: skip
        name = values.get("name") if "passed" in values else None
    elif isinstance(node, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name = keywords.get("name") if "passed" in keywords else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _result(name: str, check: Mapping[str, Any] | None) -> dg.AssetCheckResult:
    if check is None:
        return dg.AssetCheckResult(check_name=name, passed=True, description="Did not apply to this output.")
    metadata: dict[str, Any] = {"count": int(check["count"])}
    if check["examples"]:
        metadata["examples"] = ", ".join(check["examples"])
    metadata |= {key: render.value(item) for key, item in check["metadata"].items()}
    return dg.AssetCheckResult(
        check_name=name, passed=check["passed"], severity=_severity(check),
        description=_sentence(check), metadata=metadata,
    )  # fmt: skip


def _integrity(record: Record, unannounced: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    failed = [check for check in unannounced if not check["passed"]]
    severe = any(_severity(check) is dg.AssetCheckSeverity.ERROR for check in failed)
    metadata: dict[str, Any] = {"id": record.id}
    if record.checks:
        rows = [
            {k: check[k] for k in ("name", "passed", "severity", "count", "description")} for check in record.checks
        ]
        metadata["checks"] = dg.MetadataValue.md(render.markdown_table(rows))
    return dg.AssetCheckResult(
        check_name=INTEGRITY, passed=not failed, metadata=metadata,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description="; ".join(_sentence(check) for check in failed) or "The record matches its id.",
    )  # fmt: skip


def _sentence(check: Mapping[str, Any]) -> str:
    if check["passed"]:
        return check["description"]
    count = f" ({check['count']:,} at fault)" if check["count"] else ""
    return f"{check['description']}{count}"


def _severity(check: Mapping[str, Any]) -> dg.AssetCheckSeverity:
    critical = check["severity"] == "critical"
    return dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN
