"""The history is the truth: legal transitions only, aliases follow from it, a crash loses at most the line it cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.params import UserError
from serving import registry

WAY = ("exported", "staged", "checked", "live-pending", "live")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def go_live(version: int, **facts: str) -> None:
    for state in WAY:
        registry.append("search", version, state, **(facts if state == "exported" else {}))


def test_the_whole_way_and_the_facts_it_carries() -> None:
    go_live(1, method="clip", model_record="m", export_record="e")
    entries = registry.history()
    assert [(e["from"], e["to"]) for e in entries] == [(a, b) for a, b in zip((None, *WAY), WAY, strict=False)]
    assert all((e["method"], e["model_record"], e["export_record"]) == ("clip", "m", "e") for e in entries)
    assert registry.aliases("search") == registry.Aliases(champion=1)


@pytest.mark.parametrize(("start", "to"), [((), "live"), (WAY[:1], "live"), (WAY[:2], "live-pending"), (WAY, "staged")])
def test_a_state_cannot_be_skipped(start: tuple[str, ...], to: str) -> None:
    for state in start:
        registry.append("search", 1, state)
    with pytest.raises(ValueError, match="no transition"):
        registry.append("search", 1, to)
    assert len(registry.history()) == len(start)


def test_promotions_stack_and_a_rollback_takes_the_top_off() -> None:
    for version in (1, 2, 3):
        go_live(version)
        if version > 1:
            registry.append("search", version - 1, "superseded")
    assert registry.aliases("search") == registry.Aliases(champion=3, previous=2)
    for state in ("live-pending", "live"):
        registry.append("search", 2, state)
    registry.append("search", 3, "rolled_back")
    assert registry.aliases("search") == registry.Aliases(champion=2, previous=1)
    registry.publish()
    assert json.loads(registry.ALIASES.read_text()) == {"search": {"champion": 2, "previous": 1}}
    assert registry.champion("search") == 2
    assert registry.live_versions() == {"search": 2}


def test_a_line_cut_by_a_crash_is_forgotten_and_the_next_one_is_whole() -> None:
    registry.append("search", 1, "exported")
    with registry.HISTORY.open("a") as stream:
        stream.write('{"endpoint": "search", "version": 1, "to": "sta')
    assert [e["to"] for e in registry.history()] == ["exported"]
    registry.append("search", 1, "staged")
    assert [e["to"] for e in registry.history()] == ["exported", "staged"]
    assert all(json.loads(line) for line in registry.HISTORY.read_text().splitlines())


def test_a_damaged_line_is_named() -> None:
    registry.append("search", 1, "exported")
    registry.HISTORY.write_text("nonsense\n" + registry.HISTORY.read_text())
    with pytest.raises(UserError, match="line 1"):
        registry.history()


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda lines: [lines[0].replace(b"exported", b"exportee"), *lines[1:]], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], 5),
        (lambda lines: [*lines, b'{"endpoint": "search"}\n'], 6),
    ],
)
def test_a_line_that_was_changed_removed_or_put_in_is_named(
    edit: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    go_live(1)
    assert registry.damage() == []
    registry.HISTORY.write_bytes(b"".join(edit(registry.HISTORY.read_bytes().splitlines(keepends=True))))
    assert registry.damage()[0][0] == line


def test_a_history_from_before_lines_had_ids_goes_on() -> None:
    registry.HISTORY.parent.mkdir(parents=True)
    old = {"endpoint": "search", "version": 1, "from": None, "to": "exported"}
    registry.HISTORY.write_text(json.dumps(old) + "\n")
    registry.append("search", 1, "staged")
    assert registry.damage() == []


def test_no_history_no_aliases() -> None:
    assert registry.history() == []
    assert registry.champion("search") is None
    assert registry.live_versions() == {}


@given(st.lists(st.sampled_from(["promote", "rollback"]), max_size=12))
def test_aliases_are_those_of_a_stack(actions: list[str]) -> None:
    """Against the obvious model: a list that promotions push to and rollbacks pop from."""
    model: list[int] = []
    entries: list[dict[str, object]] = []
    for number, action in enumerate(actions, start=1):
        if action == "promote":
            entries.append({"version": number, "to": "live"})
            model.append(number)
        elif len(model) > 1:
            entries += [{"version": model[-2], "to": "live"}, {"version": model[-1], "to": "rolled_back"}]
            model.pop()
    assert registry.live_stack(entries) == model
