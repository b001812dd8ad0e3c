"""Promotion on a real Triton: callers notice nothing, whatever breaks and wherever it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from data import dvc, record
from data.params import UserError
from serving import ask, promote, registry, repository, server
from serving.config import REPOSITORY
from serving.switch import Switch, keep_under_dvc
from serving.triton import Query, Triton, TritonError
from tests.serving import tiny
from training import champion

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def live(served: Path) -> Path:
    """`ce_clip` is live as version 1, and `clip` has passed against it."""
    tiny.let_pass("ce_clip")
    made = promote.promote("ce_clip")
    assert (made.version, made.changed, made.method) == (1, True, "ce_clip")
    tiny.let_pass("clip", tiny.model_of("ce_clip"))
    return served


@pytest.fixture
def broken(live: Path) -> Iterator[Path]:
    """The version folder of the `clip` export, to be damaged; sealed again by `promote_broken`, restored afterwards."""
    shutil.copytree("store/exports/clip", "kept")
    yield Path("store/exports/clip/model/search/1")
    shutil.rmtree("store/exports/clip")
    Path("kept").rename("store/exports/clip")


def test_the_first_promotion_goes_through_every_state(live: Path) -> None:
    entries = registry.history("search")[:5]
    assert [e["to"] for e in entries] == ["exported", "staged", "checked", "live-pending", "live"]
    assert entries[2]["verdict_record"] == record.read(Path("store/verdicts/ce_clip")).id
    assert entries[2]["latency"]["requests"] == 20
    assert entries[4]["parity"]["text_cosine"] > 0.9999
    assert entries[4]["server_mb"] > 50
    assert ready() == {"search": [1]}
    now = champion.current("search")
    assert now is not None
    assert now.model_record == tiny.model_of("ce_clip")
    config = (REPOSITORY / "search" / "config.pbtxt").read_text()
    assert record.read(Path("store/exports/ce_clip")).id in config
    assert "versions: [ 1 ]" in config


def test_status_says_what_is_live(live: Path) -> None:
    found = promote.status()
    search = found["endpoints"]["search"]
    assert (search["live_version"], search["previous_version"], search["method"]) == (1, None, "ce_clip")
    assert (search["state"], search["ready"]) == ("live", True)
    assert search["model_record"] == tiny.model_of("ce_clip")
    assert (found["server"]["running"], found["server"]["busy"]) == (True, None)
    json.dumps(found)


def test_promoting_what_is_live_changes_nothing(live: Path) -> None:
    before = states()
    assert not promote.promote("ce_clip").changed
    assert states() == before


def reverse_index(version: Path) -> None:
    np.save(version / "embeddings.npy", np.load(version / "embeddings.npy")[::-1])


def other_weights(version: Path) -> None:
    shutil.copyfile("store/exports/ce_clip/model/search/1/text.onnx", version / "text.onnx")


def other_tokenizer(version: Path) -> None:
    content = json.loads((version / "tokenizer.json").read_text())
    words = list(content["model"]["vocab"])
    content["model"]["vocab"] = {word: number for number, word in enumerate(words[:2] + words[:1:-1])}
    (version / "tokenizer.json").write_text(json.dumps(content))


def other_pixels(version: Path) -> None:
    code = (version / "pixels.py").read_text()
    (version / "pixels.py").write_text(code.replace("dtype=np.uint8)\n", "dtype=np.uint8) // 2\n", 1))


def other_model(version: Path) -> None:
    content = json.loads((version / "settings.json").read_text())
    (version / "settings.json").write_text(json.dumps({**content, "model_record": "f" * 64}))


def torn_weights(version: Path) -> None:
    (version / "image.onnx").write_bytes((version / "image.onnx").read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "last_state", "words"),
    [
        (torn_weights, "exported", "load failed"),
        (other_weights, "staged", "text embedding at cosine"),
        (other_tokenizer, "staged", "text embedding at cosine"),
        (other_pixels, "staged", "image embedding at cosine"),
        (reverse_index, "staged", "rank 1 is"),
        (other_model, "staged", "answered by model ffffffffffff"),
    ],
)
def test_a_broken_export_is_rejected_where_it_shows(
    broken: Path, damage: Callable[[Path], None], last_state: str, words: str
) -> None:
    damage(broken)
    tiny.reseal(Path("store/exports/clip"))
    before = answered()
    with callers() as calls, pytest.raises(UserError, match=words):
        promote.promote("clip")
    assert calls.errors == []
    assert calls.answers == {before}
    assert states()[-2:] == [(2, last_state), (2, "rejected")]
    assert words in registry.history("search")[-1]["reason"]
    assert ready() == {"search": [1]}
    assert not (REPOSITORY / "search_candidate").exists()


def test_an_export_that_does_not_match_its_record_never_becomes_a_candidate(broken: Path) -> None:
    reverse_index(broken)
    before = states()
    with pytest.raises(UserError, match=r"embeddings.npy: changed since"):
        promote.promote("clip")
    assert states() == before


def test_an_export_that_failed_its_own_checks_is_refused(broken: Path) -> None:
    path = Path("store/exports/clip/record.json")
    body = json.loads(path.read_text())
    body.pop("id")
    body["checks"][0]["passed"] = False
    path.write_text(record.Record(**body).to_json())
    with pytest.raises(UserError, match="failed onnx_text_tower"):
        promote.promote("clip")


def test_a_slow_model_fails_on_its_budget_alone(live: Path) -> None:
    before = Path("params.yaml").read_text()
    Path("params.yaml").write_text(before.replace("p99_ms: 2000.0", "p99_ms: 0.01"))
    try:
        with pytest.raises(UserError, match=r"p99 latency .* over the budget of 0.01 ms"):
            promote.promote("clip")
    finally:
        Path("params.yaml").write_text(before)
    assert states()[-2:] == [(2, "staged"), (2, "rejected")]


def test_without_a_pass_the_candidate_is_rejected_before_it_is_loaded(live: Path) -> None:
    tiny.write_verdict(Path("store/verdicts/clip"), tiny.model_of("clip"), tiny.model_of("ce_clip"), "inconclusive")
    try:
        with pytest.raises(UserError, match="inconclusive"):
            promote.promote("clip")
        assert states()[-2:] == [(2, "exported"), (2, "rejected")]
    finally:
        tiny.let_pass("clip", tiny.model_of("ce_clip"))


def test_an_override_needs_a_reason(live: Path) -> None:
    with pytest.raises(UserError, match="no reason"):
        promote.promote("clip", override_reason="  ")


def test_a_method_cannot_go_to_another_endpoint(live: Path) -> None:
    with pytest.raises(UserError, match=r"endpoint search, not for compose"):
        promote.promote("clip", endpoint="compose")


def test_there_is_nothing_to_roll_back_to_at_first(live: Path) -> None:
    with pytest.raises(UserError, match="no previous version"):
        promote.rollback("search")


def test_a_failure_on_the_live_name_is_rolled_back(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate was fine; what is loaded under the live name is not. The old version alone serves afterwards."""
    check = Switch.check

    def fails_live(self: Switch, model: str, version: int) -> object:
        if model == "search":
            raise UserError("search version 2: planted")
        return check(self, model, version)

    monkeypatch.setattr(Switch, "check", fails_live)
    with callers() as calls, pytest.raises(UserError, match="planted"):
        promote.promote("clip")
    assert calls.errors == []
    assert states()[-2:] == [(2, "live-pending"), (2, "rolled_back")]
    assert ready() == {"search": [1]}
    assert answered()[0] == 1
    now = champion.current("search")
    assert now is not None
    assert now.model_record == tiny.model_of("ce_clip")


def test_bytes_changed_between_check_and_live_are_noticed(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_live = Switch.go_live

    def tampered(self: Switch, version: int) -> None:
        (REPOSITORY / "search_candidate" / str(version) / "products.json").write_text("{}")
        go_live(self, version)

    monkeypatch.setattr(Switch, "go_live", tampered)
    with pytest.raises(UserError, match="not what was checked"):
        promote.promote("clip")
    assert states()[-1] == (3, "rolled_back")
    assert ready() == {"search": [1]}


def test_promote_and_roll_back_under_load(live: Path) -> None:
    """Two versions differ; every call gets the whole answer of one of them, and each answer names its version."""
    first = answered()
    with callers() as calls:
        made = promote.promote("clip")
    second = answered()
    assert (made.version, second[0]) == (4, 4)
    assert second[1] != first[1]
    assert calls.errors == []
    assert calls.count > 50
    assert calls.answers == {first, second}
    assert registry.aliases("search") == registry.Aliases(champion=4, previous=1)
    assert states()[-2:] == [(4, "live"), (1, "superseded")]

    with callers() as calls:
        back = promote.rollback("search", reason="customers complain")
    assert back.version == 1
    assert answered() == first
    assert calls.errors == []
    assert calls.answers == {first, second}
    assert ready() == {"search": [1]}
    assert states()[-3:] == [(1, "live-pending"), (1, "live"), (4, "rolled_back")]
    assert registry.history("search")[-3]["reason"] == "customers complain"
    now = champion.current("search")
    assert now is not None
    assert now.model_record == tiny.model_of("ce_clip")


KILLED = """
import os, sys
from serving import promote, registry
append = registry.append
def killed(endpoint, version, to, **facts):
    append(endpoint, version, to, **facts)
    if to == sys.argv[1]:
        os._exit(9)
registry.append = killed
promote.promote("clip")
"""


def killed_after(state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, state],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 9, done.stderr
    assert states()[-1][1] == state


@pytest.mark.parametrize("state", ["exported", "checked"])
def test_killed_before_the_live_name_is_undone(live: Path, state: str) -> None:
    killed_after(state)
    assert promote.status()["endpoints"]["search"]["state"] == state
    assert not promote.promote("ce_clip").changed  # any next command deals with it first
    assert states()[-1][1] == "rejected"
    assert ready() == {"search": [1]}
    assert not (REPOSITORY / "search_candidate").exists()


@pytest.mark.parametrize("state", ["live-pending", "live"])
def test_killed_on_the_live_name_is_finished(live: Path, state: str) -> None:
    killed_after(state)
    version = states()[-1][0]
    assert not promote.promote("clip").changed
    assert registry.aliases("search") == registry.Aliases(champion=version, previous=1)
    assert states()[-2:] == [(version, "live"), (1, "superseded")]
    assert answered()[0] == version
    assert ready()["search"][-1] == version
    now = champion.current("search")
    assert now is not None
    assert now.model_record == tiny.model_of("clip")
    promote.rollback("search")
    assert ready() == {"search": [1]}


def test_killed_on_the_live_name_is_undone_if_it_cannot_be_finished(live: Path) -> None:
    killed_after("live-pending")
    repository.remove_candidate("search")
    assert not promote.promote("ce_clip").changed
    assert states()[-1][1] == "rolled_back"
    assert ready() == {"search": [1]}


def test_promotions_at_the_same_time_take_turns(live: Path) -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(promote.promote("clip").changed)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True]


def test_a_restart_loads_exactly_the_live_version(live: Path) -> None:
    """After the test above `clip` is live and `ce_clip` is previous."""
    version = registry.aliases("search").champion
    before = answered()
    assert ready() == {"search": [1, version]}
    server.stop()
    assert promote.status()["endpoints"]["search"]["ready"] is False
    server.start()
    assert ready() == {"search": [version]}
    assert answered() == before


def test_a_live_version_that_does_not_load_any_more_can_be_rolled_back(
    live: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn_weights(REPOSITORY / "search" / str(registry.aliases("search").champion))
    server.stop()
    server.start()
    assert "did not load" in capsys.readouterr().err
    assert ready() == {}
    assert promote.rollback("search").version == 1
    assert ready() == {"search": [1]}
    assert answered()[0] == 1


def test_a_rollback_to_a_damaged_version_leaves_the_present_one(live: Path) -> None:
    promote.promote("clip")
    before = answered()
    products = REPOSITORY / "search" / "1" / "products.json"
    kept = products.read_text()
    products.write_text(kept.replace("Shirt", "Skirt"))
    try:
        with pytest.raises(UserError, match="is not what was checked"):
            promote.rollback("search")
    finally:
        products.write_text(kept)
    assert answered() == before
    assert states()[-1] == (1, "superseded")
    assert promote.status()["endpoints"]["search"]["state"] == "live"


def test_an_override_is_recorded_and_still_demands_parity(live: Path) -> None:
    """`clip` is live; `ce_clip` has only a verdict from before there was a champion."""
    with pytest.raises(UserError, match="judged against the base model"):
        promote.promote("ce_clip")
    made = promote.promote("ce_clip", override_reason="the new season starts tonight")
    checked = next(e for e in reversed(registry.history("search")) if e["to"] == "checked")
    assert (checked["version"], checked["override"]) == (made.version, "the new season starts tonight")
    assert checked["verdict_record"] is None


def test_dvc_versions_the_champions(live: Path) -> None:
    if not (dvc.BIN / "dvc").exists():
        pytest.skip("dvc is missing; `make setup` installs it")
    subprocess.run([dvc.BIN / "dvc", "init", "-q", "--no-scm"], check=True, env=dvc.environment())
    keep_under_dvc()
    assert "path: champions" in Path("store/champions.dvc").read_text()
