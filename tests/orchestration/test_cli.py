"""The command: help for every subcommand, one sentence and exit code 2 for every mistake."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import workspace

from orchestration import cli, up

COMMANDS = ("demo", "up", "land", "stale", "status", "promote", "rollback", "ask", "serve", "stop", "trace", "impact")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert f"usage: fittingroom {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"\n    {command} " in printed for command in COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    code = "import orchestration.cli, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workspace.REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not {"torch", "dagster", "pyarrow", "great_expectations", "numpy"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask"], "nothing to ask: give a TEXT"),
        (["land", "nowhere"], "nowhere: not found"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    toy: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(workspace.REPOSITORY / "params.yaml", toy / "params.yaml")
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_port_in_use_is_named(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((up.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["up", "--port", str(port)]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_outside_a_workspace_the_command_says_where_to_go(tmp_path: Path) -> None:
    done = workspace.fittingroom(tmp_path, "stale")
    assert done.returncode == 2
    assert "Run from the folder that holds dvc.yaml." in done.stderr
    assert "Traceback" not in done.stderr


def test_stale_as_json(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.edit(toy / "params.yaml", "lr: 0.003", "lr: 0.004")
    assert cli.main(["stale", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "missing": [], "direct": {"train@ce_clip": ["params.yaml starter.ce_clip modified"]},
        "affected": ["gate@ce_clip"],
    }  # fmt: skip


def test_status_has_endpoints_server_and_stages(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (toy / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("promotion: {endpoints: {search: ce_clip}}\n")
    assert cli.main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["endpoints"]["search"]["live_version"] is None
    assert found["server"]["running"] is False
    assert found["stages"] == {"missing": [], "direct": {}, "affected": []}
    assert cli.main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "search" in printed
    assert "every stage is up to date" in printed


def test_the_instance_keeps_no_slot_of_a_cancelled_run_and_sends_nothing(toy: Path) -> None:
    with workspace.instance(toy) as there:
        settings = there.get_settings
        assert settings("run_monitoring")["free_slots_after_run_end_seconds"] > 0
        assert settings("telemetry") == {"enabled": False}
        assert settings("run_retries")["retry_on_asset_or_op_failure"] is False
        assert there.get_concurrency_config().pool_config.default_pool_limit == 1
        assert str(there.get_concurrency_config().pool_config.pool_granularity).endswith("OP")
    assert (toy / up.HOME / "dagster.yaml").is_file()
