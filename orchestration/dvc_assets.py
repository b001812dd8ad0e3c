"""One Dagster asset per stage of dvc.yaml. No asset holds stage logic: it runs `dvc repro` and reads the record."""

# No `from __future__ import annotations` here: Dagster reads the types of config and resources from the signature.
import dagster as dg
from pydantic import Field

from data import dvc
from data.params import UserError
from orchestration import checks, reports, stages
from orchestration.resources import Dvc

GPU_RETRY = dg.RetryPolicy(max_retries=1, delay=10, backoff=dg.Backoff.EXPONENTIAL)  # a training resumes where it died


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
        retry_policy=GPU_RETRY if stage.pool else None,
        metadata={"stage": stage.name, "command": stage.cmd, "output": stage.out},
    )
    def materialize(context: dg.AssetExecutionContext, config: StageConfig, dvc_repo: Dvc) -> dg.MaterializeResult:
        outcome = dvc_repo.repro(context, stage.name, force=config.force)
        try:
            entry = dvc.lock(graph.root)[stage.name]
            report = reports.stage_report(graph, stage, entry, [spec.name for spec in specs])
        except UserError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        how = {} if outcome.ran else {"skipped": reports.skip_message(graph, stage, entry)}
        if outcome.cached:
            how = {"skipped": f"{stage.name} ran before with these inputs; {stage.out} came from DVC's run cache."}
        context.log.info(how.get("skipped", f"{stage.out} is record {report.metadata['record']}"))
        return dg.MaterializeResult(
            metadata={**how, **report.metadata}, check_results=report.checks,
            data_version=dg.DataVersion(report.data_version), tags=report.tags,
        )  # fmt: skip

    return materialize
