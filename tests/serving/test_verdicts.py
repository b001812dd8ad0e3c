"""No way to go live without a pass, on exactly this model, against the champion of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import record
from data.params import UserError
from serving import verdicts
from tests.serving import tiny
from training import champion

FOLDER = Path("store/verdicts/clip")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The record ids of two models: `clip`, and the `ce_clip` that tests make champion."""
    monkeypatch.chdir(tmp_path)
    return tiny.write_model(Path("store/models/clip"), 1), tiny.write_model(Path("store/models/ce_clip"), 2)


def test_a_pass_against_the_base_model_counts_while_there_is_no_champion(models: tuple[str, str]) -> None:
    tiny.write_verdict(FOLDER, models[0], None)
    assert verdicts.demand("clip", "search", models[0]) == record.read(FOLDER).id


def test_a_pass_counts_only_against_the_present_champion(models: tuple[str, str]) -> None:
    ours, theirs = models
    tiny.write_verdict(FOLDER, ours, None)
    champion.install("search", Path("store/models/ce_clip"))
    champion.point("search", theirs)
    with pytest.raises(UserError, match=rf"judged against the base model, .* model {theirs[:12]} now.*dvc repro"):
        verdicts.demand("clip", "search", ours)
    tiny.write_verdict(FOLDER, ours, theirs)
    assert verdicts.demand("clip", "search", ours) == record.read(FOLDER).id


def test_the_champion_exported_anew_needs_no_new_verdict(models: tuple[str, str]) -> None:
    tiny.write_verdict(FOLDER, models[0], None)
    champion.install("search", Path("store/models/clip"))
    champion.point("search", models[0])
    assert verdicts.demand("clip", "search", models[0])


@pytest.mark.parametrize(
    ("verdict", "words"), [("fail", "the verdict is fail"), ("inconclusive", r"inconclusive \(needs 120 more items\)")]
)
def test_anything_but_a_pass_is_refused(models: tuple[str, str], verdict: str, words: str) -> None:
    tiny.write_verdict(FOLDER, models[0], None, verdict)
    with pytest.raises(UserError, match=words):
        verdicts.demand("clip", "search", models[0])


def test_no_verdict_is_refused_with_the_cure(models: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"no verdict on clip.*dvc repro gate@clip"):
        verdicts.demand("clip", "search", models[0])


def test_a_verdict_on_another_model_is_refused(models: tuple[str, str]) -> None:
    tiny.write_verdict(FOLDER, models[1], None)
    with pytest.raises(UserError, match=f"on model {models[1][:12]}, not on the exported model {models[0][:12]}"):
        verdicts.demand("clip", "search", models[0])


def test_a_verdict_for_another_endpoint_is_refused(models: tuple[str, str]) -> None:
    tiny.write_verdict(FOLDER, models[0], None, endpoint="compose")
    with pytest.raises(UserError, match="for endpoint compose"):
        verdicts.demand("clip", "search", models[0])


def test_an_edited_verdict_is_noticed(models: tuple[str, str]) -> None:
    tiny.write_verdict(FOLDER, models[0], None, "fail")
    path = FOLDER / "verdict.json"
    path.write_text(path.read_text().replace('"fail"', '"pass"'))
    with pytest.raises(UserError, match="changed since"):
        verdicts.demand("clip", "search", models[0])
