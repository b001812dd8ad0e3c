"""What is out of date, in DVC's words: the same stages that the Dagster UI marks.

Both name a stage *directly* stale when its command, parameters, code, or the content of an input differ from its last
run; what lies downstream of it is *affected*: it may change once the stale stages have run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data import dvc
from orchestration import stages

Report = Mapping[str, Iterable[Any]]


@dataclasses.dataclass(frozen=True)
class Staleness:
    """`missing` never ran; `direct` ran, and {stage: causes in words} now differ; `affected` lie downstream of both."""

    missing: tuple[str, ...]
    direct: Mapping[str, tuple[str, ...]]
    affected: tuple[str, ...]


def stale(root: Path) -> Staleness:
    """The stale stages of a workspace. Raises `UserError` while a running stage keeps DVC busy."""
    graph = stages.read(root)
    return summarise(graph, status(root), dvc.lock(root))


def status(root: Path) -> Report:
    """What `dvc status` reports, {stage or .dvc file: its changes}."""
    return json.loads(dvc.call("status", "--json", cwd=root))


def summarise(graph: stages.Graph, report: Report, lock: Mapping[str, Any]) -> Staleness:
    """Sort DVC's report into never run, directly stale and affected, each in the order of dvc.yaml."""
    missing = [name for name in graph.stages if name not in lock]
    direct = {
        name: tuple(_causes(report[name])) for name in graph.stages if name in report and name not in missing
    }  # fmt: skip
    reached = graph.downstream({*missing, *direct})
    affected = [name for name in graph.stages if name in reached and name not in direct and name not in missing]
    return Staleness(tuple(missing), direct, tuple(affected))


def changed_outputs(changes: Iterable[Any]) -> dict[str, str]:
    """{path: "modified" | "deleted" | ...} of the outputs that are not what the lock says."""
    return {
        path: how
        for change in changes
        if isinstance(change, Mapping)
        for path, how in change.get("changed outs", {}).items()
    }


def _causes(changes: Iterable[Any]) -> Iterable[str]:
    for change in changes:
        if not isinstance(change, Mapping):  # "changed command"
            yield f"{str(change).removeprefix('changed ')} changed"
            continue
        for path, how in change.get("changed deps", {}).items():
            for key, state in how.items() if isinstance(how, Mapping) else (("", how),):
                yield " ".join(filter(None, (path, key, state)))
        for path, how in change.get("changed outs", {}).items():
            yield f"output {path} {how}"
