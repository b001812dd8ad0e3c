"""Materializing an asset runs the stage through real DVC and Pipes, and tells what the record says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import workspace

from data import dvc, record
from orchestration import dvc_assets
from orchestration.resources import failure


def _materialization(result: dg.ExecuteInProcessResult, asset: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(asset.replace("/", "__"))
    return event  # type: ignore[return-value]


def _messages(there: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in there.all_logs(result.run_id)]


def test_a_stale_stage_runs_and_reports_its_record(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    result = workspace.materialize(toy, there, "models/ce_clip")
    assert result.success
    event = _materialization(result, "models/ce_clip")
    made = record.read(toy / "store/models/ce_clip")
    assert event.metadata["record"].value == made.id
    assert event.metadata["trace"].value == f"fittingroom trace {made.id[:12]}"
    assert event.metadata["rows"].value == 1234
    assert event.metadata["share"].value == 0.25
    assert "skipped" not in event.metadata
    report = str(event.metadata["report"].value)
    assert "| train | 1,000 | 0.8 |" in report
    assert "![loss](data:image/png;base64,iVBOR" in report
    tags, entry = event.tags or {}, dvc.lock(toy)["train@ce_clip"]
    assert tags["dagster/data_version"] == entry["outs"][0]["md5"]
    assert tags["dagster/input_data_version/catalog/dataset"] == entry["deps"][0]["md5"]
    assert any(
        "[ce_clip] done in" in message for message in _messages(there, result)
    )  # sent through Pipes by the stage


def test_an_up_to_date_stage_says_which_hashes_matched(toy: Path, there: dg.DagsterInstance) -> None:
    result = workspace.materialize(toy, there, "models/clip")
    entry = dvc.lock(toy)["train@clip"]
    dataset, base, code, out = (item["md5"][:12] for item in (*entry["deps"], *entry["outs"]))
    assert _materialization(result, "models/clip").metadata["skipped"].value == (
        f"train@clip is up to date: the hashes of store/dataset ({dataset}), store/models/base ({base}), "
        f"toy.py ({code}) and the parameters preset, starter.clip match dvc.lock, so store/models/clip ({out}) "
        "stands. Set `force` to run it anyway."
    )
    assert not any("did not receive" in message for message in _messages(there, result))


def test_force_runs_what_is_up_to_date(toy: Path, there: dg.DagsterInstance) -> None:
    result = workspace.materialize(toy, there, "models/clip", config={"force": True})
    assert result.success
    assert "skipped" not in _materialization(result, "models/clip").metadata


def test_a_return_to_earlier_parameters_is_served_from_the_run_cache(toy: Path, there: dg.DagsterInstance) -> None:
    for old, new in (("lr: 0.003", "lr: 0.004"), ("lr: 0.004", "lr: 0.003")):
        workspace.edit(toy / "params.yaml", old, new)
        result = workspace.materialize(toy, there, "models/ce_clip")
    assert "run cache" in str(_materialization(result, "models/ce_clip").metadata["skipped"].value)


def test_a_users_mistake_is_one_sentence_and_is_not_retried(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.003", "mistake: true")
    result = workspace.materialize(toy, there, "models/ce_clip")
    assert not result.success
    (step,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = step.event_specific_data
    assert data.user_failure_data.description == "params.yaml: starter.ce_clip.mistake: not allowed. Remove it."
    assert not any(event.is_step_restarted for event in result.all_events)


def test_a_crashed_training_is_run_once_more(
    toy: Path, there: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_assets, "RETRY_SECONDS", 0)
    workspace.edit(toy / "params.yaml", "lr: 0.003", "crash: true")
    result = workspace.materialize(toy, there, "models/ce_clip")
    assert result.success
    assert [event.step_key for event in result.all_events if event.is_step_restarted] == ["models__ce_clip"]


@pytest.mark.parametrize(
    ("lines", "sentence", "retry"),
    [
        (["Running stage 'x':", "error: drop.csv line 3: no id. Add one.", "ERROR: failed to reproduce 'x'"],
         "drop.csv line 3: no id. Add one.", False),
        (["Traceback (most recent call last):", '  File "x"', "MemoryError: 8 GiB", "ERROR: failed to reproduce 'x'"],
         "x crashed: MemoryError: 8 GiB", True),
        (["ERROR: failed to reproduce 'x': missing data 'source': store/dataset"],
         "failed to reproduce 'x': missing data 'source': store/dataset", True),
        ([], "x ended without a message.", True),
    ],
)  # fmt: skip
def test_failures_in_one_sentence(lines: list[str], sentence: str, retry: bool) -> None:
    found = failure("x", lines)
    assert found.description == sentence
    assert found.allow_retries is retry


def test_one_failing_branch_does_not_stop_the_other(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.002", "mistake: true")
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    result = workspace.materialize(
        toy, there, *(f"{kind}/{m}" for kind in ("models", "verdicts") for m in ("clip", "ce_clip"))
    )
    done = {event.step_key for event in result.all_events if event.is_step_success}
    assert done == {"models__ce_clip", "verdicts__ce_clip"}


RUN = """
import sys, workspace
from pathlib import Path
with workspace.instance(Path.cwd()) as there:
    sys.exit(not workspace.materialize(Path.cwd(), there, "models/clip").success)
"""


def _start(toy: Path) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """A run worker, and the stage's processes (the stage, its shell or dvc, its own child) once they work."""
    environment = {**os.environ, **workspace.environment(), "PYTHONPATH": f"{workspace.REPOSITORY}:{workspace.HERE}"}
    worker = subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=toy, env=environment, stderr=(toy / "worker.log").open("w")
    )
    pids = toy / "runs/train/clip/pids.json"
    deadline = time.monotonic() + 60
    while not pids.exists() or not pids.read_text():
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    stage = json.loads(pids.read_text())
    return worker, [psutil.Process(pid) for pid in stage]


def test_cancel_stops_the_whole_group_saves_and_frees_the_pool(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.002", "seconds: 60")
    worker, processes = _start(toy)
    assert there.event_log_storage.get_concurrency_info("gpu").active_slot_count == 1
    worker.send_signal(signal.SIGTERM)  # what Dagster's Terminate sends to the run's process
    assert worker.wait(30) != 0  # and not retried: a retry would resume from the checkpoint and succeed
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert (toy / "runs/train/clip/checkpoint").read_text() == "saved"
    assert there.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
    resumed = workspace.materialize(toy, there, "models/clip")
    assert resumed.success
    assert any("resuming from the checkpoint" in message for message in _messages(there, resumed))


def test_a_run_waits_for_a_stage_that_somebody_else_runs(toy: Path, there: dg.DagsterInstance) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.002", "seconds: 4")
    worker, _ = _start(toy)
    result = workspace.materialize(toy, there, "models/clip")
    assert worker.wait(30) == 0
    assert result.success
    assert _materialization(result, "models/clip").metadata["record"].value == record.read(toy / "store/models/clip").id
