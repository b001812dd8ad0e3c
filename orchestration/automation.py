"""What runs without anybody's click: the sensor for new drops, the one that keeps Dagster's view in step, and the one
that says when an override has expired.

The drop sensor is off until it is switched on in the UI (Automation), because a retraining costs hours; the others only
read and are on. None of them promotes.
"""

from __future__ import annotations

import contextlib
import json
from typing import cast

import dagster as dg

from data.params import UserError
from orchestration import boundary, stages

DROP_INTERVAL = 60
SYNC_INTERVAL = 30
OVERRIDE_INTERVAL = 300


def build(graph: stages.Graph) -> list[dg.SensorDefinition]:
    """The sensors of a workspace."""
    return [_drop_sensor(graph), _sync_sensor(graph), _override_sensor(graph)]


def _drop_sensor(graph: stages.Graph) -> dg.SensorDefinition:
    keys = [boundary.LANDING, *(stage.asset for stage in graph.stages.values())]
    job = dg.define_asset_job(
        "retrain", selection=dg.AssetSelection.assets(*(dg.AssetKey(key.split("/")) for key in keys)),
        description="Land a drop, then rebuild everything that follows from it, up to exports. It does not promote.",
    )  # fmt: skip

    @dg.sensor(
        name="new_drops", job=job, minimum_interval_seconds=DROP_INTERVAL,
        description=f"A new folder in {boundary.INBOX} is landed and everything that follows from it is rebuilt, once "
                    "per content. Write a drop under a name that begins with a dot and rename it when it is complete.",
    )  # fmt: skip
    def new_drops(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Cursor: {content hash: folder} of the drops already requested."""
        from data.drops import hash_drop

        seen = json.loads(context.cursor or "{}")
        requests, problems = [], []
        for folder in boundary.waiting(graph.root):
            try:
                content = hash_drop(folder)
            except UserError as error:
                problems.append(str(error))
                continue
            if content not in seen:
                seen[content] = folder.name
                requests.append(_request(content, str(folder)))
        cursor = json.dumps(seen)
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        idle = f"{len(seen)} drop(s) seen, no new one in {boundary.INBOX}."
        return dg.SensorResult(skip_reason=" ".join([idle, *problems]), cursor=cursor)

    return new_drops


def _request(content: str, folder: str) -> dg.RunRequest:
    step = boundary.LANDING.replace("/", "__")
    return dg.RunRequest(
        run_key=content,
        run_config={"ops": {step: {"config": {"paths": [folder]}}}},
        tags={"drop": content[:12], "drop_folder": folder.rsplit("/", 1)[-1]},
    )


def _sync_sensor(graph: stages.Graph) -> dg.SensorDefinition:
    @dg.sensor(
        name="work_done_elsewhere", minimum_interval_seconds=SYNC_INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING, target=None,
        description="Tells Dagster what was made by hand or by `dvc repro`, so that this page shows what is there.",
    )  # fmt: skip
    def work_done_elsewhere(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Cursor: the state of the files that change when a stage runs; while it stands, DVC is not asked."""
        from orchestration import sync

        before = stages.fingerprint(graph)
        if before == context.cursor:
            return dg.SensorResult(skip_reason="Nothing has changed since the last look.", cursor=before)
        try:
            loaded = cast(dg.RepositoryDefinition, context.repository_def).asset_graph
            events = list(sync.news(context.instance, graph.root, sync.declared_checks(loaded)))
        except UserError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        return dg.SensorResult(asset_events=events, cursor=before)

    return work_done_elsewhere


def _override_sensor(graph: stages.Graph) -> dg.SensorDefinition:
    @dg.sensor(
        name="expired_overrides", minimum_interval_seconds=OVERRIDE_INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING, target=None,
        description="Fails the check of a production asset whose model is live by an override, once that has expired.",
    )  # fmt: skip
    def expired_overrides(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Cursor: {endpoint: when the expired override told of last had ended}."""
        from serving import overrides

        told = json.loads(context.cursor or "{}")
        with contextlib.chdir(graph.root):
            found = [override for override in overrides.expired() if told.get(override.endpoint) != override.until]
        if not found:
            return dg.SensorResult(skip_reason="No override has expired since the last look.", cursor=context.cursor)
        events = []
        for override in found:
            live = boundary.live_version(graph.root, override.endpoint)
            result = boundary.override_check(live or {})
            events.append(dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey([boundary.PRODUCTION, override.endpoint]), check_name=boundary.OVERRIDE,
                passed=result.passed, severity=result.severity, description=result.description,
                metadata=result.metadata or {},
            ))  # fmt: skip
        cursor = json.dumps(told | {override.endpoint: override.until for override in found})
        return dg.SensorResult(asset_events=events, cursor=cursor)

    return expired_overrides
