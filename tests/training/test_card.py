"""The model card: everything a reader asks about a judged model, in one file that fetches nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from data import record, stage
from data.params import UserError
from tests.training.builders import write_workspace
from training import card, cost, evaluate, gate, verdict_page
from training.card_page import Section, markdown, page
from training.cost import CostConfig, Spent
from training.verdict import Comparison, Judgement, Rule

SECTIONS = (
    "Verdict", "Champion and challenger", "Official benchmarks", "Items that changed sides", "Data",
    "Noise of the hard negatives", "Method and settings", "Limits", "Cost",
)  # fmt: skip
PRICES = CostConfig(cpu_hour=0.5, gpu_hour=3.0, currency="EUR")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `clip` was judged, with prices and notes of how long its training took."""
    root = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_workspace(root)
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["cost"] = {"cpu_hour": 0.5, "gpu_hour": 3.0, "currency": "EUR"}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        clip = record.read(root / "store/models/clip").id
        record.write_run_facts(clip, {"training_seconds": 7200.0, "seconds": 9000.0, "device": "cuda:0"})
        for name in ("base", "clip"):
            assert evaluate.main([name]) == 0
        assert gate.main(["clip"]) == 0
    return root


def test_card_has_every_section_and_the_verdict(judged: Path) -> None:
    folder = judged / "store/verdicts/clip"
    text, html = (folder / "card.md").read_text(), (folder / "card.html").read_text()
    verdict = json.loads((folder / "verdict.json").read_text())
    assert re.findall(r"^## (.+)$", text, re.M) == list(SECTIONS)
    assert re.findall(r"<h2>(.+)</h2>", html) == list(SECTIONS)
    assert verdict["reason"] in text
    assert verdict["model_record"] in text
    for name in ("category", "robustness search", "compositional", "catalog retrieval"):
        assert f"| {name} |" in text
    assert "contrastive" in text  # what the method's own file says of it
    assert "sugarcrepe" in text  # not installed here


def test_page_is_one_file_that_fetches_nothing(judged: Path) -> None:
    html = (judged / "store/verdicts/clip/card.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', html)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|<script|<link", html)
    assert "default-src 'none'" in html


def test_card_is_in_the_record_and_its_plot_on_the_asset_s_page(judged: Path) -> None:
    made = record.verify(judged / "store/verdicts/clip")
    assert {"card.md", "card.html", "benchmarks.png"} <= {item["path"] for item in made.outputs}
    assert made.pictures["Champion and challenger"] == "benchmarks.png"


def test_cost_is_seconds_times_price(judged: Path) -> None:
    """Two hours with the GPU at 3 EUR; the scoring took seconds."""
    text = (judged / "store/verdicts/clip/card.md").read_text()
    assert "| cuda | 7,200.0 | 6 EUR |" in text
    assert re.search(r"In all 6(\.\d+)? EUR, at 0.5 an hour of the machine and 3 with its GPU\.", text)


def test_a_model_that_was_replaced_since_is_not_described_by_another_s_record(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    assert card._model_record({"method": "clip", "model_record": "0" * 64}) is None
    assert card._model_record({"method": "nothing", "model_record": "0" * 64}) is None
    assert list(card._cost("nothing", None)) == ["The model's record is not at hand, so its cost is not known."]


def test_audited_noise_is_shown_with_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert card._noise(None) == ["No audit of the hard negatives is at hand."]
    with stage.run("suites", kind="suites", command="-", out=card.SUITES, inputs=[], parameters={}) as run:
        run.summary(audit_judged=1000, audit_true=2, audit_error=0.002, audit_bound=0.0073)
    rows = card._noise(None)[0]
    assert rows == [{"negatives of the": "exam", "judged": "1,000", "true": 2, "share": "0.20 %", "at most": "0.73 %"}]


class TestCost:
    def test_price_by_device(self) -> None:
        assert Spent("train@clip", 1800, "cpu").price(PRICES) == pytest.approx(0.25)
        assert Spent("train@clip", 1800, "cuda").price(PRICES) == pytest.approx(1.5)
        assert Spent("train@clip", None, "cuda").price(PRICES) is None

    def test_a_run_elsewhere_is_said_and_not_counted(self) -> None:
        rows, sentence = cost.blocks([Spent("a", 3600, "cpu"), Spent("b", None, "not known here")], PRICES)
        assert [row["cost"] for row in rows] == ["0.5 EUR", ""]
        assert sentence.startswith("In all 0.5 EUR")
        assert sentence.endswith("stages that were run elsewhere are not in it.")

    def test_without_prices_seconds_are_shown(self) -> None:
        rows, sentence = cost.blocks([Spent("a", 90, "cpu")], None)
        assert (rows[0]["seconds"], rows[0]["cost"]) == ("90.0", "")
        assert "section `cost`" in sentence

    def test_what_a_model_started_from_is_part_of_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        models = Path("models")
        for name, inputs in (("base", []), ("clip", [models / "base"])):
            with stage.run(name, kind="model", command="-", out=models / name, inputs=inputs, parameters={}):
                pass
        assert [spent.stage for spent in cost.chain(record.read(models / "clip"), models)] == ["base", "clip"]

    @pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
    def test_a_price_is_a_price(self, price: float) -> None:
        with pytest.raises(ValueError, match="gpu_hour must be a price"):
            CostConfig(gpu_hour=price)


def test_gain_shared_by_the_control() -> None:
    """Ten items, a gain of 3: 1 of them on the 6 that the control gets wrong, so 2 are shared with it."""
    judgement = Judgement(verdict="pass", reason="", needs_more_items=None, comparisons=[_comparison()])
    rows, sentence = verdict_page.control_blocks(judgement, Rule(
        primary="compositional", margins={"compositional": 0.01, "catalog_retrieval": 0.01}
    ))  # fmt: skip
    assert rows[0]["difference"] == "+30.0"
    assert (rows[0]["shared by the control"], rows[0]["beyond it"]) == ("+20.0", "+10.0")
    assert rows[0]["those items"] == "6 of 10"
    assert "a text-only scorer gets wrong" in sentence


def _comparison() -> Comparison:
    beyond = {"difference": 1 / 6, "low": 0.0, "high": 0.3, "n_items": 6}
    return Comparison(
        name="compositional", metric="accuracy", challenger=0.9, champion=0.6, difference=0.3, low=0.1, high=0.5,
        p=0.01, p_single=0.01, margin=0.01, superior=True, non_inferior=True, n_items=10, n_units=10, gained=3, lost=0,
        beyond_control=beyond, needs_more_items=None, verdict="pass",
    )  # fmt: skip


def test_catalog_text_stays_text(tmp_path: Path) -> None:
    sections = [Section("A", [[{"b": "<script>|x\u202e"}], ("<i>",), "", []])]
    html = page("t<", "l", sections, tmp_path)
    assert "&lt;script&gt;|x\\u202e" in html
    assert "<i>" not in html
    assert "&lt;script>\\|x" in markdown("t", "l", sections)


def test_bad_prices_are_an_error_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("cost: {gpu_hours: 3.0}\n")
    with pytest.raises(UserError, match=r"params.yaml: cost.gpu_hours: unknown setting. Did you mean `gpu_hour`"):
        card._cost("clip", None)
