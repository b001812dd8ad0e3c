"""Looking at a live endpoint from outside: what callers get, what the server has loaded, what the history says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serving import ask, registry, server
from serving.triton import Query, Triton, TritonError

QUERY = Query(text="red shirt for women", k=5)
EVERY = 0.01  # seconds between two calls of a client


@dataclass
class Calls:
    """What two clients, one naming no version and one pinned to the champion, were answered: (version, products)."""

    answers: set[tuple[int, tuple[str, ...]]] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    count: int = 0


@contextlib.contextmanager
def callers() -> Iterator[Calls]:
    """Two clients that call every 10 ms while the block runs."""
    calls, over = Calls(), threading.Event()

    def call(ask_once: Callable[[Triton], tuple[int, tuple[str, ...]]]) -> None:
        with Triton(running()) as client:
            while not over.is_set():
                try:
                    calls.answers.add(ask_once(client))
                except TritonError as error:
                    calls.errors.append(str(error))
                calls.count += 1
                time.sleep(EVERY)

    def newest(client: Triton) -> tuple[int, tuple[str, ...]]:
        answer = client.search(QUERY)
        return answer.version, tuple(answer.ids)

    def pinned(_: Triton) -> tuple[int, tuple[str, ...]]:
        answer = ask.ask_champion("search", QUERY)
        return answer.version, tuple(answer.ids)

    threads = [threading.Thread(target=call, args=(each,)) for each in (newest, pinned)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    yield calls
    time.sleep(0.1)
    over.set()
    for thread in threads:
        thread.join()


def running() -> server.Server:
    found = server.running()
    assert found is not None
    return found


def answered() -> tuple[int, tuple[str, ...]]:
    with Triton(running()) as client:
        answer = client.search(QUERY)
    return answer.version, tuple(answer.ids)


def ready() -> dict[str, list[int]]:
    """{model: versions that take requests} as the server sees it."""
    with Triton(running()) as client:
        states = [s for s in client.index() if s.state == "READY"]
    return {name: sorted(s.version for s in states if s.name == name) for name in {s.name for s in states}}


def states() -> list[tuple[int, str]]:
    return [(entry["version"], entry["to"]) for entry in registry.history("search")]


def torn_weights(version: Path) -> None:
    (version / "image.onnx").write_bytes((version / "image.onnx").read_bytes()[:1000])
