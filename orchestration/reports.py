"""What Dagster is told of a stage's output: one account, from the record and dvc.lock, whoever ran the stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (  # the tags by which Dagster itself keeps provenance
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from data import record
from orchestration import checks, render, stages

TOUCHED = "changed outside its stage"


@dataclasses.dataclass(frozen=True)
class Report:
    """Metadata, check results and provenance tags of one output."""

    metadata: Mapping[str, Any]
    checks: Sequence[dg.AssetCheckResult]
    tags: Mapping[str, str]


def stage_report(graph: stages.Graph, stage: stages.Stage, entry: Mapping[str, Any], declared: Sequence[str]) -> Report:
    """The account of a stage from its record and its dvc.lock entry. Raises `UserError` if the record is broken."""
    folder = graph.root / stage.out
    made = record.read(folder)
    facts = record.run_facts(made.id, graph.root)
    return Report(render.metadata(folder, made, facts), checks.results(made, declared), tags(graph, stage, entry))


def tags(graph: stages.Graph, stage: stages.Stage, entry: Mapping[str, Any], how: str | None = None) -> dict[str, str]:
    """Provenance as Dagster keeps it: data version, code version and input versions of the run that dvc.lock records.

    `how` is dvc's word for an output that is no longer what the lock says ("modified", "deleted"): then no run accounts
    for it, and it gets versions that match nothing, so that the UI calls it, and what reads it, stale.
    """
    inputs = graph.upstream(stage)
    versions = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
    data_version = stages.output(entry)["md5"] if how in (None, "not in cache") else f"{how} {TOUCHED}"
    return {
        **data_version_tags(data_version),
        CODE_VERSION_TAG: stages.locked(graph, stage, entry) if how is None else f"output {how} {TOUCHED}",
        **input_tags({asset: versions[path] for path, asset in inputs.items() if path in versions}),
    }


def data_version_tags(data_version: str) -> dict[str, str]:
    """The tags of a data version that comes from outside Dagster."""
    return {DATA_VERSION_TAG: data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}


def input_tags(versions: Mapping[str, str]) -> dict[str, str]:
    """The tags that say from which {asset: data version} an output was made."""
    keys = {asset: dg.AssetKey(asset.split("/")) for asset in versions}
    return {
        **{get_input_data_version_tag(keys[asset]): version for asset, version in versions.items()},
        **{get_input_event_pointer_tag(key): NULL_EVENT_POINTER for key in keys.values()},
    }


def result(report: Report, **more: Any) -> dg.MaterializeResult:
    """A report as what a Dagster asset returns."""
    return dg.MaterializeResult(
        metadata={**more, **report.metadata}, check_results=report.checks, tags=report.tags,
        data_version=dg.DataVersion(report.tags[DATA_VERSION_TAG]),
    )  # fmt: skip


def skip_message(graph: stages.Graph, stage: stages.Stage, entry: Mapping[str, Any]) -> str:
    """Why DVC did not run a stage: the hashes and parameters that matched."""
    hashes = ", ".join(f"{dep['path']} ({dep['md5'][:12]})" for dep in entry.get("deps", []))
    params = f" and the parameters {', '.join(stage.params)}" if stage.params else ""
    return (
        f"{stage.name} is up to date: the hashes of {hashes}{params} match dvc.lock, "
        f"so {stage.out} ({stages.output(entry)['md5'][:12]}) stands. Set `force` to run it anyway."
    )
