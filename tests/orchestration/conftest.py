from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import workspace


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = workspace.create(tmp_path_factory.mktemp("made") / "toy")
    with workspace.instance(root) as there:
        told = workspace.tell(root, there)
    assert len(told) == 1 + 6  # the landing and every stage
    return root


@pytest.fixture
def toy(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy workspace of this test's own, the current folder: every stage up to date, and Dagster told of it."""
    root = tmp_path / "toy"
    shutil.copytree(made_once, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("FITTINGROOM_WORKSPACE", str(root))
    monkeypatch.setenv("PYTHONPATH", str(workspace.REPOSITORY))
    return root


@pytest.fixture
def there(toy: Path) -> Iterator[dg.DagsterInstance]:
    """The workspace's Dagster instance."""
    with workspace.instance(toy) as instance:
        yield instance
