"""One promotion at a time: a lock file that says who holds it, and that the kernel frees when its owner dies."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from data.params import UserError
from data.stage import log

POLL = 0.1  # seconds between two attempts


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a lock: `who` (user@host), process id, what for, and since when (seconds since the epoch)."""

    who: str
    pid: int
    purpose: str
    since: float

    def __str__(self) -> str:
        return f"{self.who} (process {self.pid}, {self.purpose}, since {max(0.0, time.time() - self.since):.0f} s)"


def me() -> str:
    """user@host, as history and lock files name whoever acts."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextlib.contextmanager
def hold(path: Path, purpose: str, patience: float) -> Iterator[None]:
    """Hold the lock file at `path`, waiting up to `patience` seconds. Raises `UserError` naming its owner after that.

    The lock is the kernel's (`flock`), so a killed owner never blocks anyone; the file's content is for people.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _acquire(stream.fileno(), path, purpose, patience)
        stream.truncate(0)
        stream.write(json.dumps(asdict(Owner(who=me(), pid=os.getpid(), purpose=purpose, since=time.time()))))
        stream.flush()
        yield
        stream.truncate(0)


def owner(path: Path) -> Owner | None:
    """Who holds the lock at `path` right now; None if nobody does."""
    try:
        with path.open("r+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(path)
    except FileNotFoundError:
        pass
    return None


def _acquire(descriptor: int, path: Path, purpose: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        holder = _read(path)
        if time.monotonic() >= deadline:
            raise UserError(
                f"{path}: held by {holder or 'another process'}; {purpose} waited {patience:.0f} s. "
                "Try again when it has ended."
            )
        if not told and holder:
            log(f"{purpose}: waiting for {holder}")
            told = True
        time.sleep(POLL)


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # read between the owner's truncate and write
        return None
