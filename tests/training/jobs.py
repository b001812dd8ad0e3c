"""A job for a process of its own, in a module that is quickly imported."""

from __future__ import annotations

import time

from data.params import UserError


def worker(name: str, seconds: float) -> str:
    """The name in capitals, after so many seconds."""
    if name == "bad":
        raise UserError("a bad job")
    time.sleep(seconds)
    return name.upper()
