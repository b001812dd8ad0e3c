"""Start and stop a real local Triton, which outlives the command that started it.

The binary, its Python backend and the stub for this Python come from the serving environment (`.tools/triton`). The
server listens on 127.0.0.1 only, loads exactly the live versions of the registry, and takes orders (load, unload) only
with a secret header that is made once per workspace. The header is an argument of the server process, so it keeps out
the network and other users' programs, not someone who may read this user's process list.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from data.params import UserError, section
from data.record import write_atomically
from data.stage import log
from serving import lock, registry, repository
from serving.config import REPOSITORY, SERVING, PromotionConfig

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".tools" / "triton"
PYTHON = "3.11"  # the serving environment's; the wheel ships one stub per version
STATE = SERVING / "server.json"
SECRET = SERVING / "secret"
LOG = SERVING / "triton.log"
HEADER = "fittingroom-control"
RESTRICTED = "model-repository,shared-memory,trace,logging"  # inference, health, metadata and statistics stay open
PORT_ATTEMPTS = 3
START_LIMIT = 60.0  # seconds until the server answers
STOP_LIMIT = 20.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: process id, its start (clock ticks since boot, so that a reused id is noticed), its ports."""

    pid: int
    started: int
    http: int
    grpc: int
    metrics: int


def installed() -> bool:
    """Whether the serving environment is there."""
    return (ENVIRONMENT / "bin" / "python").exists()


def running() -> Server | None:
    """The server of this workspace, if its recorded process still is that process."""
    try:
        found = Server(**json.loads(STATE.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if _start_of(found.pid) == found.started else None


def ensure_running() -> Server:
    """The running server, started if need be. Raises `UserError` if it does not answer."""
    from serving.triton import Triton

    found = running()
    if found is None:
        return start()
    with Triton(found) as client:
        if not client.live():
            raise UserError(f"Triton (process {found.pid}) does not answer; stop it and start it again. See {LOG}.")
    return found


def start(*, http: int | None = None, grpc: int | None = None, metrics: int | None = None) -> Server:
    """Start Triton on the given ports, or on free ones, with exactly the live versions loaded.

    Raises `UserError` with the log's last telling line if it does not come up. A server that runs already is returned.
    """
    if not installed():
        raise UserError(f"{ENVIRONMENT}: not found. Run `make setup`.")
    config = section(PromotionConfig, "promotion")
    with lock.hold(SERVING / "server.lock", "starting Triton", START_LIMIT):
        found = running()
        if found is not None:
            log(f"[serving] Triton runs already: process {found.pid}, HTTP port {found.http}, gRPC port {found.grpc}")
            return found
        live = _prepare()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            ports = [port or _free_port() for port in (http, grpc, metrics)]
            process = _launch(ports, live)
            try:
                return _await_start(process, ports, live, config.load_wait_s)
            except UserError as error:
                # Between finding a port free and binding it another process may have taken it.
                if attempt == PORT_ATTEMPTS or "in use" not in str(error):
                    raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def stop() -> bool:
    """Stop the server of this workspace; says whether there was one. Requests in flight are finished first."""
    found = running()
    if found is not None:
        _end(found.pid, found.started)
        log(f"[serving] Triton stopped (process {found.pid})")
    STATE.unlink(missing_ok=True)
    return found is not None


def resident_mb(server: Server) -> float:
    """Memory of the server and its model processes, MB (10^6 bytes)."""
    import psutil

    total = 0
    with_children = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in with_children:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # a model process that ends right now
            continue
    return round(total / 1e6, 1)


def control_headers() -> dict[str, str]:
    """The header without which the server takes no orders (gRPC form)."""
    return {f"triton-grpc-protocol-{HEADER}": _secret()}


def last_words(path: Path = LOG) -> str:
    """The line of the server's log that best tells why it stopped."""
    try:
        lines = [
            line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except FileNotFoundError:
        return "no log was written"
    telling = [line for line in lines if re.match(r"E\d{4} |error:|.*: error while loading", line)]
    return (telling or lines or ["the log is empty"])[-1]


def _prepare() -> dict[str, int]:
    """Bring the repository in line with the registry, and put the backend together. Returns what is to be loaded."""
    REPOSITORY.mkdir(parents=True, exist_ok=True)
    live = {}
    for endpoint, version in registry.live_versions().items():
        try:
            facts = registry.describe(endpoint, version)
            repository.write_config(endpoint, [version], export_record=facts["export_record"])
            live[endpoint] = version
        except UserError as error:  # the server must come up all the same: only with it can another be promoted
            log(f"[serving] {error}")
    backend = SERVING / "backend" / "python"
    shutil.rmtree(backend, ignore_errors=True)
    wheel = _wheel()
    shutil.copytree(wheel / "backends" / "python", backend, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(wheel / "python_backend_stubs" / PYTHON / "triton_python_backend_stub", backend)
    return live


def _launch(ports: list[int], live: dict[str, int]) -> subprocess.Popen[bytes]:
    named = dict(zip(("http", "grpc", "metrics"), ports, strict=True))
    for name, port in named.items():
        if not _is_free(port):
            raise UserError(f"{name} port {port} is in use; choose another, or leave it out to get a free one.")
    command = [
        str(_wheel() / "bin" / "tritonserver"),
        f"--model-repository={REPOSITORY.resolve()}",
        f"--backend-directory={(SERVING / 'backend').resolve()}",
        "--model-control-mode=explicit",
        "--strict-readiness=false",  # a candidate that fails to load must not make the whole server unready
        "--exit-on-error=false",  # a live version that fails to load can still be rolled back
        "--disable-auto-complete-config",  # configs are complete; asking models for them makes loads slow
        "--exit-timeout-secs=10",
        *(f"--load-model={endpoint}" for endpoint in live),
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
        *(f"--{name}-port={port}" for name, port in named.items()),
        f"--http-restricted-api={RESTRICTED}:{HEADER}={_secret()}",
        f"--grpc-restricted-protocol={RESTRICTED}:{HEADER}={_secret()}",
    ]  # fmt: skip
    with LOG.open("wb") as stream:
        return subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this command, and Ctrl-C in the terminal
        )  # fmt: skip


def _await_start(process: subprocess.Popen[bytes], ports: list[int], live: dict[str, int], patience: float) -> Server:
    from serving.triton import Triton

    begun = time.monotonic()
    started = _start_of(process.pid)
    if started is None:
        raise UserError(f"Triton ended at once: {last_words()} (see {LOG}).")
    server = Server(pid=process.pid, started=started, http=ports[0], grpc=ports[1], metrics=ports[2])
    with Triton(server) as client:
        while not client.live():
            if process.poll() is not None:
                raise UserError(f"Triton did not come up (exit code {process.returncode}): {last_words()} (see {LOG}).")
            if time.monotonic() - begun > START_LIMIT + patience:
                _end(process.pid, started)
                raise UserError(f"Triton did not answer within {START_LIMIT + patience:.0f} s: {last_words()} ({LOG}).")
            time.sleep(0.05)
        write_atomically(STATE, json.dumps(asdict(server), indent=2) + "\n")
        log(
            f"[serving] Triton is up after {time.monotonic() - begun:.1f} s: process {process.pid}, "
            f"http://127.0.0.1:{server.http}, gRPC port {server.grpc}, metrics port {server.metrics}"
        )
        for endpoint, version in live.items():
            _tell_readiness(client.ready(endpoint, version), endpoint, version)
    return server


def _tell_readiness(ready: bool, endpoint: str, version: int) -> None:
    if ready:
        log(f"[serving] {endpoint} version {version} is loaded")
    else:
        log(
            f"[serving] {endpoint} version {version} did not load: {last_words()}. Roll {endpoint} back to serve again."
        )


def _end(pid: int, started: int) -> None:
    """SIGTERM, and SIGKILL for the whole process group if that is not heeded; only for the process that is meant."""
    for sign, patience in ((signal.SIGTERM, STOP_LIMIT), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        if _start_of(pid) != started:
            return
        os.killpg(pid, sign) if sign == signal.SIGKILL else os.kill(pid, sign)
        while _start_of(pid) == started and time.monotonic() < deadline:
            time.sleep(0.05)


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _environment() -> dict[str, str]:
    """Only what the server needs: its Python stub finds the serving environment through PATH and VIRTUAL_ENV."""
    keep = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR", "TZ") if name in os.environ}
    libraries = next(ENVIRONMENT.glob("lib/python*/site-packages/nvidia_pytriton.libs"))
    return {
        **keep,
        "PATH": f"{ENVIRONMENT / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(ENVIRONMENT),
        "LD_LIBRARY_PATH": str(libraries),
        "OMP_NUM_THREADS": "1",  # numpy's; the towers set their own number of threads
        "OPENBLAS_NUM_THREADS": "1",
    }


def _wheel() -> Path:
    found = next(ENVIRONMENT.glob("lib/python*/site-packages/pytriton/tritonserver"), None)
    if found is None:
        raise UserError(f"{ENVIRONMENT}: holds no Triton (nvidia-pytriton). Run `make setup`.")
    return found


def _secret() -> str:
    """The workspace's control secret, made on first use, readable by its owner only."""
    SERVING.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return SECRET.read_text(encoding="utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_hex(24) + "\n")
    return SECRET.read_text(encoding="utf-8").strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
