"""A small drop, the starter catalog read once, and a throw-away DVC repository to land in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from small_drops import ROOT, STARTER, Built, build

from data import dvc
from data.drops import Drop, read_drop
from data.expectations import Picture
from data.images import ImageLimits
from data.land import examine_pictures


@pytest.fixture
def built() -> Built:
    return build()


@pytest.fixture(scope="session")
def starter() -> dict[str, tuple[Drop, list[Picture]]]:
    """Both starter drops, read and their pictures examined."""
    drops = {name: read_drop(STARTER / name) for name in ("drop-1", "drop-2")}
    return {name: (drop, examine_pictures(drop, ImageLimits())) for name, drop in drops.items()}


@pytest.fixture(scope="session")
def fresh_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository under DVC with this project's parameters and ignore files."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], check=True)
    dvc.call("init", "-q", cwd=folder)
    for name in ("params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def repository(fresh_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the working directory for the test."""
    folder = tmp_path / "repository"
    shutil.copytree(fresh_repository, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder
