"""One Dagster asset per stage of dvc.yaml. No asset holds stage logic: it runs `dvc repro` and reads the record."""

# No `from __future__ import annotations` here: Dagster reads the types of config and resources from the signature.
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from data import dvc
from orchestration import checks, reports, stages
from orchestration.resources import Outcome, Workspace, as_failure

RETRIES, RETRY_SECONDS = 1, 10


class StageConfig(dg.Config):
    """The form of the launch pad."""

    force: bool = Field(default=False, description="Run the stage even if nothing it depends on has changed.")


def build(graph: stages.Graph) -> list[dg.AssetsDefinition]:
    """The assets of a workspace, in the order of dvc.yaml."""
    return [_asset(graph, stage) for stage in graph.stages.values()]


def _asset(graph: stages.Graph, stage: stages.Stage) -> dg.AssetsDefinition:
    specs = checks.stage_specs(graph, stage)

    @dg.asset(
        key=stage.asset.split("/"),
        deps=[dg.AssetKey(key.split("/")) for key in graph.upstream(stage).values()],
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=[f"team:{stage.owner}"],
        description=stage.description,
        code_version=stages.wanted(graph, stage),
        pool=stage.pool,
        check_specs=specs,
        metadata={"stage": stage.name, "command": stage.cmd, "output": stage.out},
    )
    def materialize(context: dg.AssetExecutionContext, config: StageConfig, here: Workspace) -> dg.MaterializeResult:
        with _retrying(context, stage):
            outcome = here.repro(context, stage.name, force=config.force)
        with as_failure():
            entry = dvc.lock(graph.root)[stage.name]
            report = reports.stage_report(graph, stage, entry, [spec.name for spec in specs])
        more = {"skipped": _skipped(graph, stage, entry, outcome)} if not outcome.ran else {}
        context.log.info(more.get("skipped", f"{stage.out} is record {report.metadata['record']}"))
        return reports.result(report, **more)

    return materialize


@contextlib.contextmanager
def _retrying(context: dg.AssetExecutionContext, stage: stages.Stage) -> Iterator[None]:
    """Run a crashed training once more; it resumes where it died.

    Not an asset's `retry_policy`, because Dagster applies that to a cancelled run too: the training would start again.
    """
    try:
        yield
    except dg.Failure as failure:
        if stage.pool and failure.allow_retries and context.retry_number < RETRIES:
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_SECONDS) from failure
        raise


def _skipped(graph: stages.Graph, stage: stages.Stage, entry: Mapping[str, Any], outcome: Outcome) -> str:
    if outcome.cached:
        return f"{stage.name} ran before with these inputs and parameters; {stage.out} came from DVC's run cache."
    return reports.skip_message(graph, stage, entry)
