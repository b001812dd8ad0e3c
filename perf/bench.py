"""What a bench returns, and how two sides are timed against each other."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        id: of the goal, P1 and so on; empty for what has no goal.
        what, peer: the two sides in words.
        unit: of `ours` and `theirs`, which are medians over the rounds.
        ratio: median of the rounds' ratios, and `spread` the least and the greatest of them.
        floor: what the ratio must reach, or stay below where `at_most`; None where nothing is promised.
        check: what else must hold for the comparison to be fair, as found; `fair` says whether it does.
    """

    id: str
    what: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    floor: float | None = None
    at_most: bool = False
    check: str = ""
    fair: bool = True

    @property
    def held(self) -> bool:
        """Whether the ratio keeps its promise, in a fair comparison."""
        if self.floor is None:
            return self.fair
        return self.fair and (self.ratio <= self.floor if self.at_most else self.ratio >= self.floor)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, round by round."""

    ours: list[float]
    theirs: list[float]

    def rates(self, items: float) -> tuple[float, float]:
        """Median items per second of both sides, `items` per round."""
        return items / statistics.median(self.ours), items / statistics.median(self.theirs)

    def speedup(self) -> tuple[float, tuple[float, float]]:
        """How many times as long the peer takes: median, and least and greatest."""
        return summary([b / a for a, b in zip(self.ours, self.theirs, strict=True)])

    def overhead(self) -> tuple[float, tuple[float, float]]:
        """Our time as a multiple of the peer's: median, and least and greatest."""
        return summary([a / b for a, b in zip(self.ours, self.theirs, strict=True)])


def summary(ratios: list[float]) -> tuple[float, tuple[float, float]]:
    """Median, and (least, greatest)."""
    return statistics.median(ratios), (min(ratios), max(ratios))


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm: int = 1) -> Pairs:
    """Time both in turn, the order changing every round, after `warm` rounds that do not count."""
    for _ in range(warm):
        ours()
        theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            times[side].append(seconds((ours, theirs)[side]))
    return Pairs(*times)


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes. A function that times itself, without its start-up, returns its seconds as a float."""
    begun = time.perf_counter()
    own = function()
    return own if isinstance(own, float) else time.perf_counter() - begun


def speed_row(pairs: Pairs, items: float, **fields: object) -> Row:
    """A row that compares items per second."""
    ours, theirs = pairs.rates(items)
    ratio, spread = pairs.speedup()
    return Row(ours=ours, theirs=theirs, ratio=ratio, spread=spread, **fields)  # type: ignore[arg-type]


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A temporary working directory in which `store` is the repository's; runs and checkpoints vanish with it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="perf-") as folder:
        (Path(folder) / "store").symlink_to(ROOT / "store")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
