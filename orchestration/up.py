"""`fittingroom up`: the Dagster UI and its daemon on this machine, for the workspace in the current folder."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from data import dvc
from data.params import UserError
from orchestration import docs, stages

HOST, PORT = "127.0.0.1", 3000
HOME = Path("runs/dagster")
LOG = "up.log"
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
    for sign in (signal.SIGINT, signal.SIGTERM):  # also where a service manager had Ctrl-C ignored
        signal.signal(sign, signal.default_int_handler)
    pages = docs.start(root)
    os.environ[docs.ADDRESS] = docs.address(pages)  # for the links that materializations leave in the UI
    processes: list[subprocess.Popen[Any]] = []
    try:
        for service in _services(home, port):
            processes.append(_start(service, root, home))
            _await(processes[-1], service.address, home)
        console.print(f"Dagster is at [bold]http://{HOST}:{port}[/]  (Ctrl-C stops it; log: {HOME / LOG})")
        console.print(f"Data Docs of landed drops are at [bold]{docs.address(pages)}[/]")
        return _watch(processes, root, port)
    except KeyboardInterrupt:
        console.print("stopping Dagster")
        return 0
    finally:
        _stop(processes)
        pages.shutdown()


def write_home(root: Path) -> Path:
    """Create DAGSTER_HOME under `root` with the instance's settings. Returns its absolute path."""
    home = (root / HOME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home / "dagster.yaml")
    (home / LOG).write_text("", encoding="utf-8")
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
    for port in (PORT, 0) if wanted is None else (wanted,):
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


@dataclasses.dataclass(frozen=True)
class Service:
    """One process of Dagster. `address`: the port it listens on once it is up, if it has one."""

    arguments: tuple[str, ...]
    address: int | None


def _services(home: Path, port: int) -> Iterator[Service]:
    """The code server, which holds the definitions; the webserver and the daemon, which both ask it."""
    code, level = _port(0), ("--log-level", "warning")
    where = {"grpc_server": {"host": HOST, "port": code, "location_name": LOCATION}}
    workspace = home / "workspace.yaml"
    workspace.write_text(json.dumps({"load_from": [where]}), encoding="utf-8")  # JSON is YAML
    yield Service(
        ("dagster", "code-server", "start", "--host", HOST, "--port", str(code), "--module-name", LOCATION,
         "--working-directory", str(Path(__file__).parents[1]), *level),
        code,
    )  # fmt: skip
    yield Service(
        ("dagster_webserver", "--host", HOST, "--port", str(port), "--workspace", str(workspace),
         "--dagster-log-level", "warning"),
        port,
    )  # fmt: skip
    yield Service(("dagster._daemon", "run", "--workspace", str(workspace), *level), None)


def _start(service: Service, root: Path, home: Path) -> subprocess.Popen[Any]:
    with (home / LOG).open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *service.arguments], cwd=root, env=environment(root, home), stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _await(process: subprocess.Popen[Any], address: int | None, home: Path) -> None:
    """Wait until a service listens. Raises `UserError` with its last words if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while address and not _listens(address):
        if process.poll() is not None or time.monotonic() > deadline:
            words = (home / LOG).read_text(encoding="utf-8", errors="replace").strip() or "no output"
            raise UserError(f"Dagster did not start ({words.splitlines()[-1]}). The whole log: {HOME / LOG}.")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _watch(processes: list[subprocess.Popen[Any]], root: Path, port: int) -> int:
    """Have Dagster load the assets anew when the files they are generated from change, so that staleness shows."""
    seen = _fingerprint(root)
    while all(process.poll() is None for process in processes):
        time.sleep(1.0)
        now = _fingerprint(root)
        if now != seen:
            seen = now
            _reload(port)
    print(f"Dagster ended by itself; see {HOME / LOG}.", file=sys.stderr)
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


def _stop(processes: list[subprocess.Popen[Any]]) -> None:
    """Interrupt every service, and wait until all that it started is gone.

    Runs still going are interrupted with the code server that launched them, and have time to save their checkpoints;
    materialize again to resume them.
    """
    for process in reversed(processes):
        process.send_signal(signal.SIGINT)
    for process in reversed(processes):
        dvc.stop_group(process, patience=STOP_SECONDS)
