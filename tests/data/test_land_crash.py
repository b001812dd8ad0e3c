"""Kill a landing dead at any moment, land again, and find what an undisturbed landing leaves, byte by byte."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_drops import ROOT, build, jpeg, tree

from data import dvc, record
from data.land import land

UP_TO_DATE = "Data and pipelines are up to date."
DROPS = Path("store/drops")


@dataclass(frozen=True)
class Undisturbed:
    """A repository before and after the drop has landed, and how long `python -m data.land` took for it."""

    before: Path
    drop: Path
    store: dict[str, Any]
    seconds: float


def start(drop: Path) -> subprocess.Popen[bytes]:
    """A landing in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "data.land", str(drop)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(fresh_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A drop with updates, a withdrawal and quarantined rows, landing on top of another."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(fresh_repository, folder / "repository", symlinks=True)
    update = build(30, first=15)
    update.images["00016.jpg"] = jpeg(160)
    del update.images["00017.jpg"]
    for row in update.rows:
        row["withdrawn"] = "true" if row["id"] == "00018" else ""
    drop = update.write(folder / "drop")
    with contextlib.chdir(folder / "repository"):
        land([build().write(folder / "first")])
        shutil.copytree(folder / "repository", folder / "before", symlinks=True)
        begun = time.monotonic()
        assert start(drop).wait(300) == 0
        seconds = time.monotonic() - begun
        return Undisturbed(folder / "before", drop, tree(Path("store")), seconds)


def check_lands_as_undisturbed(undisturbed: Undisturbed) -> None:
    """Here, where a landing was killed."""
    (landing,) = land([undisturbed.drop])
    assert tree(Path("store")) == undisturbed.store
    assert dvc.call("status").strip() == UP_TO_DATE
    shutil.rmtree(DROPS)
    dvc.call("checkout")  # DVC's cache is as whole as the store
    assert tree(Path("store")) == undisturbed.store
    assert record.verify(landing.folder).id == landing.record_id


def kill(process: subprocess.Popen[bytes], group: bool) -> None:
    """SIGKILL to the landing, or to it and the `dvc` that it may have started."""
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def killed_at_random(undisturbed: Undisturbed, seed: int) -> None:
    """Half of the moments fall into the last third, where files are written."""
    chance = random.Random(seed)
    process = start(undisturbed.drop)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(undisturbed.seconds * chance.uniform(*chance.choice([(0.0, 0.67), (0.67, 1.1)])))
    kill(process, group=bool(seed % 2) and process.poll() is None)
    check_lands_as_undisturbed(undisturbed)


@pytest.fixture
def repository(undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(undisturbed.before, tmp_path / "repository", symlinks=True)
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize("seed", range(3))
def test_a_landing_killed_at_a_random_moment(repository: Path, undisturbed: Undisturbed, seed: int) -> None:
    killed_at_random(undisturbed, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 15))
def test_a_landing_killed_at_many_random_moments(repository: Path, undisturbed: Undisturbed, seed: int) -> None:
    killed_at_random(undisturbed, seed)


def half_written() -> bool:
    return bool(list(DROPS.glob(".*.partial")))


def products_written() -> bool:
    return bool(list(DROPS.glob(".*.partial/quarantine.parquet")))


def in_place() -> bool:
    """The landing is in its place and DVC does not know it yet."""
    return len(list(DROPS.glob("[!.]*"))) == 2


@pytest.mark.parametrize("moment", [half_written, products_written, in_place])
def test_a_landing_killed_at_a_known_moment(
    repository: Path, undisturbed: Undisturbed, moment: Callable[[], bool]
) -> None:
    process = start(undisturbed.drop)
    while not moment():
        assert process.poll() is None, "the landing ended before it could be killed"
        time.sleep(0.001)
    kill(process, group=moment is not in_place)
    check_lands_as_undisturbed(undisturbed)


def test_order_and_name_of_the_files_do_not_matter(repository: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The same files under another name, written in another order: the same drop, which lands once."""
    (first,) = land([undisturbed.drop])
    other = tmp_path / "another name"
    files = sorted((f for f in undisturbed.drop.rglob("*") if f.is_file()), reverse=True)
    for file in files:
        target = other / file.relative_to(undisturbed.drop)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (again,) = land([other])
    assert (again.new, again.record_id) == (False, first.record_id)
    assert tree(Path("store")) == undisturbed.store
