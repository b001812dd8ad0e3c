"""Fixtures of the training tests: a tiny workspace, with and without its base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training import tiny


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny workspace whose corpus and base model were made once; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        from data import corpus
        from training import base

        assert corpus.main([]) == 0
        assert base.main([]) == 0
    return folder


@pytest.fixture
def workspace(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built` of this test's own, and the working directory."""
    folder = tmp_path / "workspace"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder
