"""What runs without anybody's click: the sensor for new drops, and the one that keeps Dagster's view in step.

The drop sensor is off until it is switched on in the UI (Automation), because a retraining costs hours; the other one
only reads and is on.
"""

from __future__ import annotations

import json
from typing import cast

import dagster as dg

from data.params import UserError
from orchestration import boundary, stages

DROP_INTERVAL = 60
SYNC_INTERVAL = 30


def build(graph: stages.Graph) -> list[dg.SensorDefinition]:
    """The sensors of a workspace."""
    return [_drop_sensor(graph), _sync_sensor(graph)]


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
