"""Overrides by the history alone: who is live by one, until when, and what they still authorise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from data import record
from data.params import UserError, strict
from serving import overrides, registry, verdicts
from serving.config import LINEAGE, PromotionConfig
from tests.serving import tiny
from training import champion

MODEL = "m" * 64
PAST, FUTURE = "2026-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def go_live(version: int, model: str = MODEL, authority: Mapping[str, str | None] | None = None) -> None:
    for state in ("exported", "staged", "checked", "live-pending", "live"):
        facts = {"method": "clip", "model_record": model, "export_record": "e" * 64} if state == "exported" else {}
        registry.append("search", version, state, **facts, **(authority or {} if state == "checked" else {}))


def by_override(until: str) -> dict[str, str | None]:
    return {"override": "late", "override_until": until, "overridden": "inconclusive", "verdict_record": "v" * 64}


def test_every_later_line_says_by_what_right_a_version_is_live() -> None:
    go_live(1, authority=by_override(FUTURE))
    assert [entry.get("override") for entry in registry.history("search")] == [None, None, "late", "late", "late"]
    found = overrides.standing("search")
    assert found is not None
    assert not found.expired
    assert found.facts == by_override(FUTURE)
    assert "search version 1 is live by an override, until 2999-01-01: late" in found.sentence
    assert overrides.expired() == []


def test_an_override_ends_and_is_listed_until_somebody_acts() -> None:
    go_live(1, authority=by_override(PAST))
    (found,) = overrides.expired()
    assert found.expired
    assert "EXPIRED on 2026-01-01" in found.sentence
    registry.append("search", 1, "live", action=registry.RENEW, replaces=None, **by_override(FUTURE))
    assert overrides.expired() == []
    assert registry.live_versions() == {"search": 1}
    assert registry.damage() == []


def test_a_verdict_is_no_override() -> None:
    go_live(1, authority={**dict.fromkeys(by_override(PAST)), "verdict_record": "v" * 64})
    assert overrides.standing("search") is None
    assert overrides.latest("search", MODEL) is None


def test_a_line_from_before_overrides_had_an_end_has_expired() -> None:
    go_live(1, authority={"override": "long ago"})
    assert [found.reason for found in overrides.expired()] == ["long ago"]


def test_an_override_holds_for_its_model_until_that_is_rolled_back() -> None:
    go_live(1, "a" * 64)
    go_live(2, authority=by_override(FUTURE))
    assert overrides.latest("search", "a" * 64) is None
    assert overrides.latest("search", MODEL) is not None
    for state in ("superseded", "live-pending", "live"):
        registry.append("search", 1, state)
    registry.append("search", 2, "rolled_back")
    assert overrides.latest("search", MODEL) is None
    assert overrides.standing("search") is None


def test_an_override_does_not_become_a_verdict() -> None:
    """A pass against another opponent, overridden: that the model is champion since does not make the pass count."""
    ours = tiny.write_model(Path("store/models/clip"), 1)
    tiny.write_verdict(Path("store/verdicts/clip"), ours, "b" * 64)
    champion.install("search", Path("store/models/clip"))
    champion.point("search", ours)
    go_live(1, ours, by_override(FUTURE))
    with pytest.raises(UserError, match="by an override, not by this verdict"):
        verdicts.demand("clip", "search", ours)


def test_the_verdict_on_a_model_is_found_whatever_it_says() -> None:
    folder = Path("store/verdicts/clip")
    assert verdicts.on("clip", MODEL) is None
    tiny.write_verdict(folder, MODEL, None, "fail")
    assert verdicts.on("clip", MODEL) == record.read(folder).id
    assert verdicts.on("clip", "n" * 64) is None
    (folder / "verdict.json").write_text("{}")
    assert verdicts.on("clip", MODEL) is None


def test_the_kept_card_tells_the_override_first() -> None:
    card = Path("store/verdicts/clip/card.md")
    card.parent.mkdir(parents=True)
    card.write_text("# clip: inconclusive\n\n**Why.**\n")
    card.with_suffix(".html").write_text("<h1>clip</h1>\n<p>Why.</p>\n")
    kept = LINEAGE / "search/3"
    overrides.keep_card("search", 3, "clip", {**by_override(FUTURE), "override": "a < b & c"})
    lines = (kept / "card.md").read_text().splitlines()
    assert lines[0] == "# clip: inconclusive"
    assert "by an override until 2999-01-01: a" in lines[2]
    assert (
        "<b>Live without a passing verdict, by an override until 2999-01-01: a &lt; b &amp; c</b>"
        in (kept / "card.html").read_text()
    )
    overrides.keep_card("search", 4, "clip", {**by_override(FUTURE), "override": None})
    assert (LINEAGE / "search/4/card.md").read_text() == card.read_text()
    overrides.keep_card("search", 5, "clip", {**by_override(FUTURE), "verdict_record": None})
    assert not (LINEAGE / "search/5").exists()


@pytest.mark.parametrize("days", [0, -1, 1000])
def test_an_override_without_end_is_refused(days: float) -> None:
    with pytest.raises(UserError, match="override_days"):
        strict(PromotionConfig, {"endpoints": {}, "override_days": days}, "params.yaml: promotion")
