"""`fittingroom up`: the Dagster UI and its daemon on this machine, for the workspace in the current folder."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console

from data import dvc
from data.params import UserError
from orchestration import stages

HOST, PORT = "127.0.0.1", 3000
HOME = Path("runs/dagster")
LOCATION = "orchestration.definitions"
START_SECONDS, STOP_SECONDS = 90.0, 60.0
RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"


def up(port: int | None = None) -> int:
    """Serve until Ctrl-C. Returns 0 then, 1 if Dagster ended by itself.

    Raises `UserError` if the port is taken, the workspace is not right, or the environment is broken.
    """
    console = Console(highlight=False)
    root = stages.workspace()
    stages.read(root)
    check_environment()
    port = _port(port)
    home = write_home(root)
    told = _sync(root, home)
    if told:
        console.print(f"{len(told)} output(s) made outside Dagster are now known to it")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C
    process = _start(root, home, port)
    try:
        _await(process, port, home)
        console.print(f"Dagster is at [bold]http://{HOST}:{port}[/]  (log: {_log(home)}; Ctrl-C stops it)")
        return _watch(process, root, port)
    except KeyboardInterrupt:
        console.print("stopping Dagster")
        return 0
    finally:
        _stop(process)


def write_home(root: Path) -> Path:
    """Create DAGSTER_HOME under `root` with the instance's settings. Returns its absolute path."""
    home = (root / HOME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home / "dagster.yaml")
    return home


def check_environment() -> None:
    """Parse one asset selection; Dagster's grammar breaks silently beside a tool that pins an old antlr."""
    import dagster as dg

    try:
        dg.AssetSelection.from_string('key:"models/clip"+')
    except Exception as error:
        raise UserError(
            f"Dagster cannot parse asset selections ({type(error).__name__}: {error}): another package has replaced "
            f"antlr4-python3-runtime. Keep DVC and Hydra out of {sys.prefix}; `make setup` restores it."
        ) from None


def environment(root: Path, home: Path) -> dict[str, str]:
    """The environment of the Dagster processes: where the workspace and its instance are, nothing sent anywhere."""
    return {
        **dvc.environment(), "DAGSTER_HOME": str(home), "FITTINGROOM_WORKSPACE": str(root),
        "GX_ANALYTICS_ENABLED": "false",
    }  # fmt: skip


def _port(wanted: int | None) -> int:
    for port in (wanted,) if wanted else (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError(f"port {wanted} is in use on {HOST}. Give another one: `fittingroom up --port 3001`.")


def _sync(root: Path, home: Path) -> list[str]:
    import dagster as dg

    from orchestration import definitions, sync

    graph = definitions.build(root).resolve_asset_graph()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        try:
            return sync.sync(instance, root, sync.declared_checks(graph))
        except UserError as error:  # a stage is running: the sensor will tell Dagster when it is done
            print(f"not told to Dagster yet: {error}", file=sys.stderr)
            return []


def _start(root: Path, home: Path, port: int) -> subprocess.Popen[Any]:
    command = [
        sys.executable, "-m", "dagster", "dev", "--host", HOST, "--port", str(port), "--module-name", LOCATION,
        "--working-directory", str(Path(__file__).parents[1]), "--log-level", "warning",
        "--code-server-log-level", "warning",
    ]  # fmt: skip
    with _log(home).open("w") as log:
        return subprocess.Popen(
            command, cwd=root, env=environment(root, home), stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _log(home: Path) -> Path:
    return home / "up.log"


def _await(process: subprocess.Popen[Any], port: int, home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=2).close()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    last = (_log(home).read_text(encoding="utf-8", errors="replace").strip() or "no output").splitlines()[-1]
    raise UserError(f"Dagster did not start ({last}). The whole log: {_log(home)}.")


def _watch(process: subprocess.Popen[Any], root: Path, port: int) -> int:
    """Have Dagster load the assets anew when the files they are generated from change, so that staleness shows."""
    seen = _fingerprint(root)
    while process.poll() is None:
        time.sleep(1.0)
        now = _fingerprint(root)
        if now != seen:
            seen = now
            _reload(port)
    print("Dagster ended by itself; see its log.", file=sys.stderr)
    return 1


def _fingerprint(root: Path) -> str | None:
    """The state of the graph's files; a dvc.yaml that cannot be read now is a state too (the UI shows the error)."""
    try:
        return stages.fingerprint(stages.read(root))
    except UserError:
        return None


def _reload(port: int) -> None:
    body = json.dumps({"query": RELOAD, "variables": {"name": LOCATION}}).encode()
    request = urllib.request.Request(
        f"http://{HOST}:{port}/graphql", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except (OSError, http.client.HTTPException) as error:
        print(f"the UI still shows the previous definitions ({error}); use its Reload button", file=sys.stderr)


def _stop(process: subprocess.Popen[Any]) -> None:
    """End the webserver, the daemon and the code server as Ctrl-C on `dagster dev` does.

    Runs still going are interrupted and have time to save their checkpoints; materialize again to resume them.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    dvc.stop_group(process, patience=STOP_SECONDS)
