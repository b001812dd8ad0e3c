from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_catalog import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with the real stages and a few hundred real products; its server is stopped at the end."""
    made = Workspace.create(tmp_path_factory.mktemp("e2e") / "workspace")
    yield made
    made.fittingroom("stop")
