"""Starting and stopping a real Triton: only on this machine, never the wrong process, clear words when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data.params import UserError
from serving import server
from serving.triton import Triton

needs_triton = pytest.mark.skipif(
    not server.installed(), reason=f"{server.ENVIRONMENT} is missing; `make setup` installs the Triton server"
)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("promotion: {endpoints: {search: ce_clip}}\n")
    yield tmp_path
    server.stop()


@needs_triton
def test_it_listens_on_this_machine_only_survives_its_starter_and_stops(empty: Path) -> None:
    code = "from serving import server; print(server.start().pid)"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    found = server.running()
    try:
        assert found is not None
        assert found.pid == int(done.stdout)
        process = psutil.Process(found.pid)
        listening = {c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        assert {a.port for a in listening} == {found.http, found.grpc, found.metrics}
        assert {a.ip.removeprefix("::ffff:") for a in listening} == {"127.0.0.1"}
        assert server.start() == found
        with Triton(found) as client:
            assert client.live()
            assert client.index() == []
        assert server.resident_mb(found) > 10
    finally:
        assert server.stop()
    assert server.running() is None
    assert found is not None
    assert not psutil.pid_exists(found.pid) or psutil.Process(found.pid).status() == psutil.STATUS_ZOMBIE
    assert not server.stop()


@needs_triton
def test_the_secret_is_made_once_and_is_private(empty: Path) -> None:
    first = server.control_headers()
    assert server.control_headers() == first
    assert stat.S_IMODE(server.SECRET.stat().st_mode) == 0o600
    assert len(server.SECRET.read_text().strip()) == 48


def test_a_reused_process_id_is_neither_trusted_nor_killed(empty: Path) -> None:
    """server.json names this very process, but with the start of another one: the id was given to us since."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        server.STATE.parent.mkdir(parents=True)
        state = {"pid": bystander.pid, "started": 1, "http": 1, "grpc": 2, "metrics": 3}
        server.STATE.write_text(json.dumps(state))
        assert server.running() is None
        assert not server.stop()
        assert bystander.poll() is None
        assert not server.STATE.exists()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"pid": "x"'])
def test_a_damaged_state_file_is_no_server(empty: Path, content: str) -> None:
    server.STATE.parent.mkdir(parents=True)
    server.STATE.write_text(content)
    assert server.running() is None


@needs_triton
def test_a_taken_port_is_named(empty: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"http port {port} is in use"):
            server.start(http=port)
    assert server.running() is None


@needs_triton
def test_a_server_that_does_not_come_up_says_why(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RESTRICTED", "no-such-api")
    with pytest.raises(UserError, match=r"did not come up.*unknown restricted api 'no-such-api'.*triton\.log"):
        server.start()
    assert server.running() is None


def test_the_telling_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    assert server.last_words(log) == "no log was written"
    log.write_text("")
    assert server.last_words(log) == "the log is empty"
    log.write_text("I1122 all is well\nerror: creating server: no space left\nI1122 bye\n\n")
    assert server.last_words(log) == "error: creating server: no space left"


def test_without_the_serving_environment_the_cure_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENVIRONMENT", empty / "nowhere")
    with pytest.raises(UserError, match="make setup"):
        server.start()
