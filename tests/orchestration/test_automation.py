"""The sensors: a drop is requested once per content, and Dagster's view is kept in step without asking DVC in vain."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import workspace

from data import dvc
from orchestration import automation, boundary, definitions, stages


def _sensor(root: Path, name: str) -> dg.SensorDefinition:
    return next(s for s in automation.build(stages.read(root)) if s.name == name)


def _tick(root: Path, there: dg.DagsterInstance, name: str, cursor: str | None) -> Any:
    context = dg.build_sensor_context(
        instance=there, cursor=cursor, repository_def=definitions.build(root).get_repository_def()
    )
    return _sensor(root, name).evaluate_tick(context)


def _drop(root: Path, name: str, content: str = "id,title\n1,Red Shoe\n") -> Path:
    folder = root / boundary.INBOX / name
    folder.mkdir(parents=True)
    (folder / "catalog.csv").write_text(content, encoding="utf-8")
    return folder


def test_a_new_drop_is_requested_once(toy: Path, there: dg.DagsterInstance) -> None:
    folder = _drop(toy, "monday")
    first = _tick(toy, there, "new_drops", None)
    (request,) = first.run_requests
    assert request.run_config == {"ops": {"catalog__drops": {"config": {"paths": [str(folder)]}}}}
    second = _tick(toy, there, "new_drops", first.cursor)
    assert not second.run_requests
    assert "1 drop(s) seen, no new one in runs/inbox." in second.skip_message


def test_the_same_files_under_another_name_are_the_same_drop(toy: Path, there: dg.DagsterInstance) -> None:
    shutil.copytree(_drop(toy, "monday"), toy / boundary.INBOX / "again")
    first = _tick(toy, there, "new_drops", None)
    assert len(first.run_requests) == 1
    shutil.rmtree(toy / boundary.INBOX / "monday")
    assert not _tick(toy, there, "new_drops", first.cursor).run_requests


def test_a_changed_drop_is_a_new_one_with_its_own_run_key(toy: Path, there: dg.DagsterInstance) -> None:
    folder = _drop(toy, "monday")
    first = _tick(toy, there, "new_drops", None)
    (folder / "catalog.csv").write_text("id,title\n1,Blue Shoe\n", encoding="utf-8")
    second = _tick(toy, there, "new_drops", first.cursor)
    assert len(second.run_requests) == 1
    assert second.run_requests[0].run_key != first.run_requests[0].run_key


def test_a_drop_still_being_written_is_left_alone(toy: Path, there: dg.DagsterInstance) -> None:
    _drop(toy, ".monday")
    assert not _tick(toy, there, "new_drops", None).run_requests


def test_a_drop_that_cannot_be_read_does_not_stop_the_others(toy: Path, there: dg.DagsterInstance) -> None:
    bad = _drop(toy, "bad")
    (bad / "leads_out").symlink_to("/etc")
    result = _tick(toy, there, "new_drops", None)
    assert not result.run_requests
    assert "leads out of the drop" in result.skip_message
    _drop(toy, "good")
    assert len(_tick(toy, there, "new_drops", result.cursor).run_requests) == 1


def test_no_inbox_is_no_error(toy: Path, there: dg.DagsterInstance) -> None:
    assert "0 drop(s) seen" in _tick(toy, there, "new_drops", None).skip_message


def test_the_drop_sensor_waits_for_a_person_to_switch_it_on(toy: Path) -> None:
    drops, elsewhere = _sensor(toy, "new_drops"), _sensor(toy, "work_done_elsewhere")
    assert drops.default_status is dg.DefaultSensorStatus.STOPPED
    assert drops.minimum_interval_seconds is not None
    assert drops.minimum_interval_seconds >= 60
    assert elsewhere.default_status is dg.DefaultSensorStatus.RUNNING


def test_retraining_goes_from_the_drop_to_the_verdicts_and_does_not_promote(toy: Path) -> None:
    job = definitions.build(toy).resolve_job_def("retrain")
    selected = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert selected == {"catalog/drops", *(stage.asset for stage in stages.read(toy).stages.values())}
    assert not any(key.startswith(boundary.PRODUCTION) for key in selected)


def test_work_done_elsewhere_is_told_once(toy: Path, there: dg.DagsterInstance) -> None:
    idle = _tick(toy, there, "work_done_elsewhere", None)
    assert not idle.asset_events
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    workspace.repro(toy)
    events = _tick(toy, there, "work_done_elsewhere", idle.cursor).asset_events
    made = [event.asset_key.to_user_string() for event in events if isinstance(event, dg.AssetMaterialization)]
    assert made == ["models/ce_clip", "verdicts/ce_clip"]
    assert any(isinstance(event, dg.AssetCheckEvaluation) for event in events)


def test_an_idle_workspace_is_not_asked_again(
    toy: Path, there: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _tick(toy, there, "work_done_elsewhere", None)
    monkeypatch.setattr(dvc, "call", lambda *_, **__: pytest.fail("DVC was asked though nothing had changed"))
    assert "Nothing has changed" in _tick(toy, there, "work_done_elsewhere", first.cursor).skip_message


def test_a_busy_dvc_is_asked_again_later(toy: Path, there: dg.DagsterInstance) -> None:
    """While a stage runs, `dvc status` fails; the cursor must not move, or its result would never be told."""
    lock = toy / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)
    busy = {"write": {"pid": 1, "cmd": "dvc repro"}}
    lock.write_text(json.dumps({str(toy / "store/models/clip"): busy}), encoding="utf-8")
    result = _tick(toy, there, "work_done_elsewhere", "before")
    assert "status --json" in result.skip_message
    assert result.cursor == "before"
