"""Work done outside Dagster appears in it once, with its metadata and checks."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import workspace
from dagster._core.definitions.data_version import StaleStatus

from data import dvc, record
from orchestration import stages


def _last(there: dg.DagsterInstance, asset: str) -> dg.AssetMaterialization:
    event = there.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def _checks(there: dg.DagsterInstance, asset: str, *names: str) -> dict[str, bool]:
    keys = [dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name) for name in names]
    found = there.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {key.name: bool(found[key].evaluation.passed) for key in keys if found[key].evaluation}


def test_a_repro_by_hand_shows_as_materialized_and_fresh(toy: Path, there: dg.DagsterInstance) -> None:
    found = workspace.statuses(toy, there)
    assert set(found.values()) == {StaleStatus.FRESH}
    assert len(found) == 7
    lock = dvc.lock(toy)
    for stage in stages.read(toy).stages.values():
        event = _last(there, stage.asset)
        assert (event.tags or {})["dagster/data_version"] == lock[stage.name]["outs"][0]["md5"]
        assert event.metadata["record"].value == record.read(toy / stage.out).id
    assert _checks(there, "catalog/dataset", "record", "complete", "rare", "test_share") == {
        "record": True, "complete": True, "rare": False, "test_share": True,
    }  # fmt: skip


def test_telling_twice_tells_nothing(toy: Path, there: dg.DagsterInstance) -> None:
    assert workspace.tell(toy, there) == []


def test_only_what_changed_is_told(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    workspace.repro(toy)
    assert workspace.tell(toy, there) == ["models/ce_clip", "verdicts/ce_clip"]
    assert set(workspace.statuses(toy, there).values()) == {StaleStatus.FRESH}


def test_a_run_in_between_is_corrected_to_the_inputs_it_really_had(toy: Path, there: dg.DagsterInstance) -> None:
    """Upstream by hand, downstream in Dagster: Dagster alone would note the upstream version that it knew."""
    workspace.edit(toy / "params.yaml", "lr: 0.00001", "lr: 0.1")
    workspace.repro(toy, "--single-item", "base")
    assert workspace.materialize(toy, there, "models/clip", "models/ce_clip").success
    assert workspace.tell(toy, there) == ["models/base"]
    found = workspace.statuses(toy, there)
    assert found["models/clip"] is found["models/ce_clip"] is StaleStatus.FRESH


def test_a_deleted_output_is_told_and_so_is_its_return(toy: Path, there: dg.DagsterInstance) -> None:
    shutil.rmtree(toy / "store/verdicts/clip")
    assert workspace.tell(toy, there) == ["verdicts/clip"]
    assert workspace.statuses(toy, there)["verdicts/clip"] is StaleStatus.STALE
    assert "not found" in str(_last(there, "verdicts/clip").metadata["record"].value)
    dvc.call("checkout", "-q", "store/verdicts/clip", cwd=toy)
    assert workspace.tell(toy, there) == ["verdicts/clip"]
    assert workspace.statuses(toy, there)["verdicts/clip"] is StaleStatus.FRESH


def test_assets_of_a_running_run_are_left_to_it(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    workspace.repro(toy)
    there.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB", status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({dg.AssetKey(["models", "ce_clip"])}),
        )
    )  # fmt: skip
    assert workspace.tell(toy, there) == ["verdicts/ce_clip"]
