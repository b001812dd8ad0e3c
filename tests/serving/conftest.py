"""A workspace with two exported tiny models, built once, and copies of it that tests may ruin."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data import record
from serving import export, promote, registry, repository, server
from serving.triton import Triton
from tests.serving import tiny

PARAMS = """preset: starter
export: {golden_texts: 8, golden_images: 5, golden_pairs: 3}
promotion: {endpoints: {search: ce_clip}, p99_ms: 2000.0, latency_requests: 20, lock_wait_s: 20.0}
"""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `ce_clip` and `clip` are trained (random weights) and exported."""
    root = tmp_path_factory.mktemp("exported")
    torch.set_num_threads(1)
    with contextlib.chdir(root):
        Path("params.yaml").write_text(PARAMS)
        tiny.write_dataset(Path("store/dataset"))
        for seed, method in enumerate(("ce_clip", "clip"), start=1):
            tiny.write_model(Path("store/models") / method, seed)
            assert export.main([method]) == 0
    return root


def _copied(exported: Path, target: Path) -> Iterator[Path]:
    shutil.copytree(exported, target)
    before = Path.cwd()
    os.chdir(target)
    yield target
    server.stop()
    os.chdir(before)


@pytest.fixture
def home(exported: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the workspace as the current folder; its server, if one was started, is stopped."""
    yield from _copied(exported, tmp_path / "home")


@pytest.fixture(scope="module")
def served(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the workspace for a whole module, with a real Triton running in it."""
    if not server.installed():
        pytest.skip(f"{server.ENVIRONMENT} is missing; `make setup` installs the Triton server")
    for home in _copied(exported, tmp_path_factory.mktemp("served") / "home"):
        server.start()
        yield home


@pytest.fixture(scope="module")
def loaded(served: Path) -> Iterator[Triton]:
    """A client of a server on which the export of `clip` is live as version 1, put there without a promotion."""
    export = Path("store/exports/clip")
    made = record.read(export)
    for state in ("exported", "staged", "checked", "live-pending", "live"):
        facts = {"export_record": made.id, "model_record": made.summary["model_record"]} if state == "exported" else {}
        registry.append("search", 1, state, **facts)
    registry.publish()
    repository.install(export, made, "search", 1)
    repository.write_config("search", [1], export_record=made.id)
    running = server.running()
    assert running is not None
    with Triton(running) as client:
        client.load("search", 60)
        yield client


@pytest.fixture(scope="module")
def live(served: Path) -> Path:
    """`ce_clip` is live as version 1, and `clip` has passed against it."""
    tiny.let_pass("ce_clip")
    made = promote.promote("ce_clip")
    assert (made.version, made.changed, made.method) == (1, True, "ce_clip")
    tiny.let_pass("clip", tiny.model_of("ce_clip"))
    return served
