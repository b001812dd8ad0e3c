"""Killed, restarted, damaged, asked twice at once: the next command finishes or undoes, and callers go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data.params import UserError
from serving import promote, registry, repository, server
from serving.config import REPOSITORY
from tests.serving import tiny
from tests.serving.endpoint import answered, ready, states, torn_weights
from training import champion

ROOT = Path(__file__).parents[2]
KILLED = """
import os, sys
from serving import promote, registry
append = registry.append
def killed(endpoint, version, to, **facts):
    append(endpoint, version, to, **facts)
    if to == sys.argv[1]:
        os._exit(9)
registry.append = killed
promote.promote("clip")
"""


def killed_after(state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, state],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 9, done.stderr
    assert states()[-1][1] == state


@pytest.mark.parametrize("state", ["exported", "checked"])
def test_killed_before_the_live_name_is_undone(live: Path, state: str) -> None:
    killed_after(state)
    assert promote.status()["endpoints"]["search"]["state"] == state
    assert not promote.promote("ce_clip").changed  # any next command deals with it first
    assert states()[-1][1] == "rejected"
    assert ready() == {"search": [1]}
    assert not (REPOSITORY / "search_candidate").exists()


@pytest.mark.parametrize("state", ["live-pending", "live"])
def test_killed_on_the_live_name_is_finished(live: Path, state: str) -> None:
    killed_after(state)
    version = states()[-1][0]
    assert not promote.promote("clip").changed
    assert registry.aliases("search") == registry.Aliases(champion=version, previous=1)
    assert states()[-2:] == [(version, "live"), (1, "superseded")]
    assert answered()[0] == version
    assert ready()["search"][-1] == version
    now = champion.current("search")
    assert now is not None
    assert now.model_record == tiny.model_of("clip")
    promote.rollback("search")
    assert ready() == {"search": [1]}


def test_killed_on_the_live_name_is_undone_if_it_cannot_be_finished(live: Path) -> None:
    killed_after("live-pending")
    repository.remove_candidate("search")
    assert not promote.promote("ce_clip").changed
    assert states()[-1][1] == "rolled_back"
    assert ready() == {"search": [1]}


def test_promotions_at_the_same_time_take_turns(live: Path) -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(promote.promote("clip").changed)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True]


def test_a_restart_loads_exactly_the_live_version(live: Path) -> None:
    """After the test above `clip` is live and `ce_clip` is previous."""
    version = registry.aliases("search").champion
    before = answered()
    assert ready() == {"search": [1, version]}
    server.stop()
    assert promote.status()["endpoints"]["search"]["ready"] is False
    server.start()
    assert ready() == {"search": [version]}
    assert answered() == before


def test_a_live_version_that_does_not_load_any_more_can_be_rolled_back(
    live: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn_weights(REPOSITORY / "search" / str(registry.aliases("search").champion))
    server.stop()
    server.start()
    assert "did not load" in capsys.readouterr().err
    assert ready() == {}
    assert promote.rollback("search").version == 1
    assert ready() == {"search": [1]}
    assert answered()[0] == 1


def test_a_rollback_to_a_damaged_version_leaves_the_present_one(live: Path) -> None:
    promote.promote("clip")
    before = answered()
    products = REPOSITORY / "search" / "1" / "products.json"
    kept = products.read_text()
    products.write_text(kept.replace("Shirt", "Skirt"))
    try:
        with pytest.raises(UserError, match="is not what was checked"):
            promote.rollback("search")
    finally:
        products.write_text(kept)
    assert answered() == before
    assert states()[-1] == (1, "superseded")
    assert promote.status()["endpoints"]["search"]["state"] == "live"


def test_an_export_whose_live_version_was_deleted_can_be_promoted_again(
    live: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = registry.aliases("search").champion
    shutil.rmtree(REPOSITORY)
    server.stop()
    server.start()
    assert "Promote its export again" in capsys.readouterr().err
    made = promote.promote(registry.describe("search", before or 0)["method"])
    assert made.changed
    assert ready() == {"search": [made.version]}
