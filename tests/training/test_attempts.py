"""Attempts: counted once each, in a file that nobody edits unseen, anew for every champion."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from data.params import UserError, strict
from tests.training.builders import GATE
from training.attempts import ATTEMPTS, Attempt
from training.statistics import spent
from training.verdict import GateConfig

FIRST = Attempt(endpoint="search", method="clip", champion="c" * 64, model="1" * 64, suites="s" * 64)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def retrained(digit: str) -> Attempt:
    return dataclasses.replace(FIRST, model=digit * 64)


def test_every_retraining_counts_once() -> None:
    assert FIRST.number == 1
    FIRST.note()
    assert FIRST.number == 1
    second = retrained("2")
    assert second.number == 2
    second.note()
    for again in (FIRST, second, FIRST):
        again.note()
    assert (FIRST.number, second.number, retrained("3").number) == (1, 2, 3)
    assert [json.loads(line)["attempt"] for line in ATTEMPTS.read_text().splitlines()] == [1, 2]


def test_the_same_model_on_other_items_is_another_look() -> None:
    FIRST.note()
    assert dataclasses.replace(FIRST, suites="t" * 64).number == 2


@pytest.mark.parametrize("other", [{"champion": "d" * 64}, {"method": "ce_clip"}, {"endpoint": "compose"}])
def test_another_champion_method_or_endpoint_counts_from_one(other: dict[str, str]) -> None:
    FIRST.note()
    retrained("2").note()
    assert dataclasses.replace(FIRST, **other).number == 1  # type: ignore[arg-type]
    assert retrained("3").number == 3


def test_an_attempt_that_was_taken_out_of_the_file_is_noticed() -> None:
    for digit in "123":
        retrained(digit).note()
    lines = ATTEMPTS.read_text().splitlines(keepends=True)
    ATTEMPTS.write_text(lines[0] + lines[2])
    with pytest.raises(UserError, match=r"attempts.jsonl: line 2 does not follow the line before it"):
        retrained("4").number  # noqa: B018
    ATTEMPTS.write_text(lines[0].replace("clip", "simla") + "".join(lines[1:]))
    with pytest.raises(UserError, match="line 1 was changed"):
        FIRST.note()


def test_a_line_cut_by_a_crash_is_no_attempt() -> None:
    FIRST.note()
    with ATTEMPTS.open("a") as stream:
        stream.write('{"endpoint": "search"')
    with pytest.raises(UserError, match="line 2 cannot be read"):
        FIRST.number  # noqa: B018


def test_what_is_spent_never_exceeds_alpha() -> None:
    assert [spent(0.06, k) for k in (1, 2, 3)] == pytest.approx([0.03, 0.01, 0.005])
    assert sum(spent(0.05, k) for k in range(1, 2000)) < 0.05
    with pytest.raises(ValueError, match="from 1"):
        spent(0.05, 0)


def test_alpha_is_spent_over_the_attempts_of_a_method() -> None:
    """0.05 / (1 * 2) is 2.5 % at one end, a 95 % interval; the third attempt has 0.05 / (3 * 4)."""
    config = strict(GateConfig, GATE, "gate")
    first, third = config.rule("search"), config.rule("search", attempt=3)
    assert first.level == pytest.approx(0.025)
    assert first.confidence == pytest.approx(0.95)
    assert first.resamples == config.draws
    assert third.level == pytest.approx(0.05 / 12)
    assert third.resamples == 6 * config.draws
    assert third.lucky == pytest.approx(0.05 * (1 / 2 + 1 / 6 + 1 / 12))
    assert third.lucky_unspent == pytest.approx(1 - 0.975**3)
    total = sum(config.rule("search", k).level for k in range(1, 300))
    assert 0.0495 < total < config.alpha
