"""Work done by hand or by `dvc repro`, told to Dagster, so that its UI shows what is there and calls stale what is.

For every output the last materialization that Dagster knows is compared with what dvc.lock and `dvc status` say now:
data version, code version and input versions. Where they differ, a materialization outside any run is reported, with
the record's metadata and checks. Doing it twice reports nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX

from data import dvc
from data.params import UserError
from orchestration import boundary, reports, stages, staleness

UNFINISHED = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
Declared = Mapping[str, Sequence[str]]  # asset key -> names of its declared checks
Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


def sync(instance: dg.DagsterInstance, root: Path, declared: Declared) -> list[str]:
    """Tell Dagster what it does not know yet. Returns the assets told. Raises `UserError` if DVC is busy."""
    told = []
    for event in news(instance, root, declared):
        instance.report_runless_asset_event(event)
        if isinstance(event, dg.AssetMaterialization):
            told.append(event.asset_key.to_user_string())
    return told


def news(instance: dg.DagsterInstance, root: Path, declared: Declared) -> Iterator[Event]:
    """The materializations, each followed by its checks, that Dagster has missed.

    Assets of unfinished runs are left alone: those runs report themselves. Raises `UserError` while DVC is busy.
    """
    graph = stages.read(root)
    assets = [boundary.LANDING, *(stage.asset for stage in graph.stages.values()), *boundary.endpoint_assets(root)]
    running, known = _running(instance), _known(instance, assets)
    for asset, tags, report in [*boundary.contents(graph, declared), *_stages(graph, declared)]:
        if asset not in running and _provenance(asset, known.get(asset, {})) != _provenance(asset, tags):
            yield from _events(asset, tags, report)


def declared_checks(graph: BaseAssetGraph) -> dict[str, list[str]]:
    """{asset key: names of its checks} of loaded definitions."""
    names: dict[str, list[str]] = {}
    for key in graph.asset_check_keys:
        names.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    return names


def _stages(graph: stages.Graph, declared: Declared) -> Iterator[boundary.Content]:
    status, lock = staleness.status(graph.root), dvc.lock(graph.root)
    for stage in graph.stages.values():
        entry = lock.get(stage.name)
        if entry is not None:
            how = staleness.changed_outputs(status.get(stage.name, ())).get(stage.out)
            report = functools.partial(reports.stage_report, graph, stage, entry, declared.get(stage.asset, ()))
            yield stage.asset, reports.tags(graph, stage, entry, how), report


def _events(asset: str, tags: Mapping[str, str], report: boundary.Reporter) -> Iterator[Event]:
    key = dg.AssetKey(asset.split("/"))
    try:
        content = report()
    except UserError as error:  # the output was deleted or edited: that is what there is to tell
        content = reports.Report({"record": str(error)}, (), tags)
    yield dg.AssetMaterialization(
        asset_key=key, tags=tags, metadata=content.metadata, description="Made outside Dagster: by hand or `dvc repro`."
    )
    for result in content.checks:
        yield dg.AssetCheckEvaluation(
            asset_key=key, check_name=str(result.check_name), passed=result.passed, metadata=result.metadata or {},
            severity=result.severity, description=result.description,
        )  # fmt: skip


def _running(instance: dg.DagsterInstance) -> set[str]:
    """The assets that unfinished runs are going to materialize."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED)))
    return {key.to_user_string() for run in runs for key in run.asset_selection or ()}


def _known(instance: dg.DagsterInstance, assets: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """{asset: tags of its last materialization}."""
    records = instance.get_asset_records([dg.AssetKey(asset.split("/")) for asset in assets])
    events = [(record.asset_entry.asset_key, record.asset_entry.last_materialization) for record in records]
    return {
        key.to_user_string(): event.asset_materialization.tags or {}
        for key, event in events
        if event and event.asset_materialization
    }


def _provenance(asset: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that tell one making of an output from another.

    A promotion is told by its version alone: exports rebuilt since make the endpoint stale, not newly promoted.
    """
    found = {key: tags[key] for key in (CODE_VERSION_TAG, DATA_VERSION_TAG) if key in tags}
    if not asset.startswith(f"{boundary.PRODUCTION}/"):
        found |= {key: value for key, value in tags.items() if key.startswith(INPUT_DATA_VERSION_TAG_PREFIX)}
    return found
