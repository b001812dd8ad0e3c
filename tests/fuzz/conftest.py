"""The helpers and the throw-away DVC repository of tests/data."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from tests.data.conftest import fresh_repository, repository

__all__ = ["fresh_repository", "repository"]
