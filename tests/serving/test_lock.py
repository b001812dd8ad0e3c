"""One at a time; the lock names its owner and dies with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data.params import UserError
from serving import lock

HOLD = """
import sys, time
from pathlib import Path
from serving import lock
with lock.hold(Path(sys.argv[1]), "promoting clip", 1):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_command_is_told_who_holds_it_and_a_killed_owner_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "promotion.lock"
    process = holder(path)
    try:
        found = lock.owner(path)
        assert found is not None
        assert (found.pid, found.purpose) == (process.pid, "promoting clip")
        with (
            pytest.raises(UserError, match=rf"process {process.pid}, promoting clip"),
            lock.hold(path, "rollback", 0.3),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    assert lock.owner(path) is None
    with lock.hold(path, "rollback", 1.0):
        assert lock.owner(path) is not None
    assert lock.owner(path) is None


def test_holders_take_turns(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "a.lock", [], []

    def work(number: int) -> None:
        with lock.hold(path, f"job {number}", 10.0):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_nobody_holds_a_lock_that_was_never_made(tmp_path: Path) -> None:
    assert lock.owner(tmp_path / "none.lock") is None
