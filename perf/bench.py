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
        cpu_ratio: the same median over processor time of this process, which a busy machine disturbs less; None where
            a side works in processes of its own.
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
    cpu_ratio: float | None = None
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
    """Seconds of both sides, round by round, and their processor seconds where those mean anything."""

    ours: list[float]
    theirs: list[float]
    cpu: tuple[list[float], list[float]] = ([], [])

    def rates(self, items: float) -> tuple[float, float]:
        """Median items per second of both sides, `items` per round."""
        return items / statistics.median(self.ours), items / statistics.median(self.theirs)

    def speedup(self) -> tuple[float, tuple[float, float]]:
        """How many times as long the peer takes: median, and least and greatest."""
        return summary([b / a for a, b in zip(self.ours, self.theirs, strict=True)])

    def cpu_speedup(self) -> float | None:
        """Median of the peer's processor time as a multiple of ours."""
        return statistics.median(b / a for a, b in zip(*self.cpu, strict=True)) if self.cpu[0] else None

    def overhead(self) -> tuple[float, tuple[float, float]]:
        """Our time as a multiple of the peer's: median, and least and greatest."""
        return summary([a / b for a, b in zip(self.ours, self.theirs, strict=True)])


def summary(ratios: list[float]) -> tuple[float, tuple[float, float]]:
    """Median, and (least, greatest)."""
    return statistics.median(ratios), (min(ratios), max(ratios))


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm: int = 1) -> Pairs:
    """Time both in turn, the order changing every round, after `warm` rounds that do not count.

    A side that times itself, to leave out its start-up, returns its seconds as a float.
    """
    for _ in range(warm):
        ours()
        theirs()
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            begun, used = time.perf_counter(), time.process_time()
            own = (ours, theirs)[side]()
            cpu[side].append(time.process_time() - used)
            wall[side].append(own if isinstance(own, float) else time.perf_counter() - begun)
    times_itself = isinstance(own, float)
    return Pairs(*wall, ([], []) if times_itself else cpu)


def speed_row(pairs: Pairs, items: float, **fields: object) -> Row:
    """A row that compares items per second."""
    ours, theirs = pairs.rates(items)
    ratio, spread = pairs.speedup()
    return Row(ours=ours, theirs=theirs, ratio=ratio, spread=spread, cpu_ratio=pairs.cpu_speedup(), **fields)  # type: ignore[arg-type]


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
