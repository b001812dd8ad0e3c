"""The gate from Dagster: a fresh run of production assets alone meets it, automation goes round it nowhere, and an
override shows until it has expired, and after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import workspace
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from orchestration import automation, boundary, definitions, stages
from serving import registry, server
from tests.serving import tiny
from tests.serving.conftest import PARAMS, exported  # noqa: F401  (a fixture)

PRODUCTION = dg.AssetKey(["production", "search"])
VERDICT = Path("store/verdicts/ce_clip")


@pytest.fixture
def endpoint(toy: Path, exported: Path) -> Iterator[Path]:  # noqa: F811
    """The toy workspace with a real model and its real export where the toy's were; its server is stopped."""
    if not server.installed():
        pytest.skip(f"{server.ENVIRONMENT} is missing; `make setup` installs the Triton server")
    for name in ("store/models", "store/exports", "store/dataset"):
        shutil.rmtree(toy / name, ignore_errors=True)
        shutil.copytree(exported / name, toy / name)
    settings = yaml.safe_load((toy / "params.yaml").read_text()) | yaml.safe_load(PARAMS)
    (toy / "params.yaml").write_text(yaml.safe_dump(settings))
    yield toy
    server.stop()


def promote(root: Path, there: dg.DagsterInstance, **config: str) -> dg.ExecuteInProcessResult:
    """A fresh run of the production asset alone."""
    return workspace.materialize(root, there, "production/search", config=config or None)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence of a run that failed."""
    assert not result.success
    (step,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = step.event_specific_data
    return str(data.user_failure_data.description)


def override_check(result: dg.ExecuteInProcessResult) -> AssetCheckEvaluation:
    (found,) = [event for event in result.get_asset_check_evaluations() if event.check_name == boundary.OVERRIDE]
    return found


def test_a_fresh_run_of_production_alone_meets_the_gate(endpoint: Path, there: dg.DagsterInstance) -> None:
    model = tiny.model_of("ce_clip")
    shutil.rmtree(VERDICT)
    assert "there is no verdict on ce_clip" in failure(promote(endpoint, there))
    tiny.write_verdict(VERDICT, model, None, "fail")
    assert "the verdict is fail" in failure(promote(endpoint, there))
    tiny.write_verdict(VERDICT, "f" * 64, None, "pass")
    assert f"the verdict is on model ffffffffffff, not on the exported model {model[:12]}" in failure(
        promote(endpoint, there)
    )
    assert registry.live_versions() == {}
    assert there.get_latest_materialization_event(PRODUCTION) is None

    tiny.write_verdict(VERDICT, model, None, "inconclusive")
    overridden = promote(endpoint, there, override_reason="the season starts tonight")
    check = override_check(overridden)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "by an override, until" in str(check.description)
    (event,) = overridden.asset_materializations_for_node("production__search")
    assert event.metadata["override"].value == "the season starts tonight"  # type: ignore[union-attr]
    assert {"override_until", "overridden", "verdict_record"} <= set(event.metadata)  # type: ignore[union-attr]
    assert registry.live_versions() == {"search": 1}
    shown = workspace.fittingroom(endpoint, "status").stdout
    assert "override search: until" in shown
    assert "the season starts tonight" in shown


def test_no_job_or_sensor_promotes_by_itself(toy: Path) -> None:
    shutil.copy(workspace.REPOSITORY / "params.yaml", toy / "params.yaml")
    found = definitions.build(toy).get_repository_def()
    jobs = [job for job in found.get_all_jobs() if not job.name.startswith("__")]
    assert [job.name for job in jobs] == ["retrain"]
    for job in jobs:
        assert not [key for key in job.asset_layer.executable_asset_keys if key.path[0] == boundary.PRODUCTION]
    for node in found.asset_graph.asset_nodes:
        assert node.key.path[0] != boundary.PRODUCTION or node.automation_condition is None


def _live(version: int, until: str) -> None:
    facts = {"method": "ce_clip", "model_record": "m" * 64, "export_record": "e" * 64}
    authority = {"override": "late", "override_until": until, "overridden": "fail", "verdict_record": "v" * 64}
    for state in ("exported", "staged", "checked", "live-pending", "live"):
        registry.append("search", version, state, **facts, **(authority if state == "checked" else {}))


def test_an_expired_override_is_told_once(toy: Path, there: dg.DagsterInstance) -> None:
    shutil.copy(workspace.REPOSITORY / "params.yaml", toy / "params.yaml")
    (sensor,) = [s for s in automation.build(stages.read(toy)) if s.name == "expired_overrides"]

    def tick(cursor: str | None) -> Any:
        loaded = definitions.build(toy).get_repository_def()
        return sensor.evaluate_tick(dg.build_sensor_context(instance=there, cursor=cursor, repository_def=loaded))

    assert "No override has expired" in tick(None).skip_message
    _live(1, "2999-01-01T00:00:00+00:00")
    assert "No override has expired" in tick(None).skip_message
    assert "production/search" in workspace.tell(toy, there)
    _live(2, "2026-01-01T00:00:00+00:00")
    first = tick(None)
    (event,) = first.asset_events
    assert isinstance(event, AssetCheckEvaluation)
    assert (event.asset_key, event.check_name, event.passed) == (PRODUCTION, "override", False)
    assert event.severity is dg.AssetCheckSeverity.ERROR
    assert "EXPIRED on 2026-01-01" in str(event.description)
    assert "No override has expired" in tick(first.cursor).skip_message
