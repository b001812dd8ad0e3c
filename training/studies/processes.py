"""Work in processes of their own, several at a time. Imports nothing heavy: every process begins by reading this."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

J = TypeVar("J", bound=tuple[Any, ...])
T = TypeVar("T")


def in_processes(function: Callable[..., T], jobs: Sequence[J], count: int) -> Iterator[tuple[J, T]]:
    """(job, function(*job)) of jobs in the order in which they are done, `count` at a time."""
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _quiet_end) as pool:
        futures = {pool.submit(function, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _quiet_end() -> None:
    """A worker ends at once and without a word at Ctrl-C; the parent says what is kept."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
