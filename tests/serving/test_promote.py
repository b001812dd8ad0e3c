"""Promotion on a real Triton: callers notice nothing, whatever breaks and wherever it is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from data import dvc, record
from data.lineage import Chain
from data.params import UserError
from serving import lineage, promote, registry
from serving.config import REPOSITORY
from serving.switch import Switch, keep_under_dvc
from tests.serving import tiny
from tests.serving.endpoint import answered, callers, ready, states, torn_weights
from training import champion


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
    embeddings = np.load(version / "embeddings.npy", allow_pickle=False)
    np.save(version / "embeddings.npy", embeddings[::-1], allow_pickle=False)


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


def test_a_model_trained_again_since_its_export_is_refused(live: Path) -> None:
    kept = Path("store/models/clip").rename("store/models/kept")
    try:
        tiny.write_model(Path("store/models/clip"), seed=3)
        with pytest.raises(UserError, match=r"was trained again since its export.*dvc repro export@clip"):
            promote.promote("clip")
    finally:
        shutil.rmtree("store/models/clip")
        kept.rename("store/models/clip")
    assert states()[-2:] == [(2, "exported"), (2, "rejected")]


def test_an_override_needs_a_reason_and_does_not_excuse_wrong_answers(broken: Path) -> None:
    reverse_index(broken)
    tiny.reseal(Path("store/exports/clip"))
    with pytest.raises(UserError, match="golden inputs differ"):
        promote.promote("clip", override_reason="it is late")
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


def lasting(days: float) -> None:
    """Set how long overrides last."""
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings["promotion"]["override_days"] = days
    Path("params.yaml").write_text(yaml.safe_dump(settings))


def test_an_override_is_recorded_with_the_verdict_it_overrides(live: Path) -> None:
    tiny.write_verdict(Path("store/verdicts/clip"), tiny.model_of("clip"), tiny.model_of("ce_clip"), "inconclusive")
    made = promote.promote("clip", override_reason="the new season starts tonight")
    checked = next(e for e in reversed(registry.history("search")) if e["to"] == "checked")
    assert (checked["version"], checked["override"]) == (made.version, "the new season starts tonight")
    judged = record.read(Path("store/verdicts/clip")).id
    assert checked["verdict_record"] == judged
    assert "inconclusive (needs 120 more items)" in checked["overridden"]
    lasts = datetime.fromisoformat(checked["override_until"]) - datetime.now(UTC)
    assert timedelta(days=13.9) < lasts < timedelta(days=14)
    status = promote.status()["endpoints"]["search"]
    assert status["override"] == "the new season starts tonight"
    assert (status["verdict_record"], status["override_expired"]) == (judged, False)
    assert judged in {path.stem for path in Path("runs/serving/lineage/search").glob(f"{made.version}/records/*.json")}
    found = lineage.live("search")
    assert found.facts["verdict_record"] == judged
    chain = lineage.trace(found, lineage.archive(), Chain())
    assert chain.nodes[judged].record is not None


def test_while_an_override_holds_promoting_again_needs_no_reason(live: Path) -> None:
    before = states()
    assert not promote.promote("clip").changed
    assert states() == before


def test_an_expired_override_blocks_but_does_not_unload(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Path("params.yaml").read_text()
    try:
        lasting(1e-6)  # a tenth of a second
        promote.promote("clip", override_reason="once more")
        assert registry.history("search")[-1]["action"] == registry.RENEW
        time.sleep(1.2)
        before, served = states(), answered()
        with pytest.raises(UserError, match=r"EXPIRED on .*once more.*goes on serving.*--reason"):
            promote.promote("clip")
        assert states() == before
        assert answered() == served
        assert promote.status()["endpoints"]["search"]["override_expired"]
        capsys.readouterr()
        with pytest.raises(UserError, match="no reason"):
            promote.promote("clip", override_reason=" ")
        with pytest.raises(UserError, match="no previous version"):
            promote.rollback("compose")
        assert "WARNING: search version" in capsys.readouterr().err
        lasting(3.0)
        promote.promote("clip", override_reason="until Monday")
        assert promote.status()["endpoints"]["search"]["override"] == "until Monday"
        assert not promote.status()["endpoints"]["search"]["override_expired"]
    finally:
        Path("params.yaml").write_text(kept)


def test_a_rollback_ends_the_override(live: Path) -> None:
    """What was taken away for a reason does not come back on the old authority."""
    promote.rollback("search", reason="customers complain")
    assert promote.status()["endpoints"]["search"]["override"] is None
    before = ready()
    with pytest.raises(UserError, match="inconclusive"):
        promote.promote("clip")
    assert ready() == before


def test_dvc_versions_the_champions(live: Path) -> None:
    if not (dvc.BIN / "dvc").exists():
        pytest.skip("dvc is missing; `make setup` installs it")
    subprocess.run([dvc.BIN / "dvc", "init", "-q", "--no-scm"], check=True, env=dvc.environment())
    keep_under_dvc()
    assert "path: champions" in Path("store/champions.dvc").read_text()
