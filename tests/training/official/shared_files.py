"""Real annotation files, where the machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("FITTINGROOM_SHARED", ROOT.parent / "shared")) / "data" / "benchmarks"


def official(name: str) -> Path:
    """The folder of a benchmark's official files; the test is skipped where it is not."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name}: not on this machine (FITTINGROOM_SHARED says where it is)")
    return SHARED / name
