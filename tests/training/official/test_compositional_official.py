"""The compositional benchmarks: official files load whole, and hand-computed numbers come out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.official.audit_exams import ConstantExam, RandomExam
from tests.training.official.fixture_aro import coco_order
from training.benchmarks import aro, sugarcrepe, sugarcrepe_pp, valse, vl_checklist, winoground
from training.official import files, intervals, word_order
from training.official.contract import Picture, Vectors
from training.official.pairs import ACCURACY, BLIND, SEEN, SHARED
from training.official.scoring import OFFICIAL, table
from training.ranking import TIE

ROOT = Path(__file__).parents[3]
SHARED_FILES = Path(os.environ.get("FITTINGROOM_SHARED", ROOT.parent / "shared")) / "data/benchmarks"
needs_files = pytest.mark.skipif(
    not SHARED_FILES.is_dir(), reason=f"{SHARED_FILES}: not on this machine (FITTINGROOM_SHARED says where it is)"
)
SUGARCREPE = {
    "add_obj": 2062, "add_att": 692, "replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245,
    "swap_att": 666,
}  # fmt: skip
VALSE = {
    "existence": 505, "plurals": 851, "counting-small-quant": 900, "counting-hard": 868, "counting-adversarial": 691,
    "relations": 535, "action-replacement": 648, "actant-swap": 949, "coreference-standard": 708,
    "coreference-hard": 104, "foil-it": 943,
}  # fmt: skip
CE_CLIP = {  # on VALSE; counting is one column in print
    "existence": 78.6, "plurals": 77.7, "counting-small-quant": 64.4, "counting-hard": 64.4,
    "counting-adversarial": 64.4, "relations": 74.4, "action-replacement": 81.2, "actant-swap": 88.6,
    "coreference-standard": 54.7, "coreference-hard": 54.8, "foil-it": 93.7,
}  # fmt: skip


class ByText(RandomExam):
    """A score for each text, whatever the picture: right on known items, wrong on others, equal on the rest."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        super().__init__(0)
        self._scores = scores

    def match(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        return np.array([self._scores[text] for text in texts], np.float32)


def known_outcomes(items: pa.Table, score: Callable[[pa.Table, RandomExam], pa.Table]) -> tuple[pa.Table, pd.Series]:
    """Outcomes of a scorer that is right, wrong or undecided by the place of an item, and what they must be."""
    places = np.arange(items.num_rows) % 7
    exam = ByText({})
    wanted = np.where(places < 4, 1.0, np.where(places < 6, -1.0, 0.0))
    exam.match = lambda _, texts: (  # type: ignore[method-assign]
        wanted if texts == items["caption"].to_pylist() else np.zeros(len(texts))
    ).astype(np.float32)
    expected = pd.Series(100.0 * (wanted > 0)).groupby(items["slice"].to_pandas()).mean()
    return score(items, exam), expected


# --- SugarCrepe -------------------------------------------------------------------------------------------------------


@needs_files
def test_sugarcrepe_loads_whole() -> None:
    benchmark, folder = sugarcrepe.BENCHMARKS["sugarcrepe"], SHARED_FILES / "sugarcrepe"
    assert len(files.check(benchmark, folder)) == 7
    items = benchmark.load(folder)
    assert Counter(items["slice"].to_pylist()) == SUGARCREPE
    assert items.num_rows == 7511
    assert "swap_obj/108" not in items["item_id"].to_pylist()
    assert "swap_obj/245" in items["item_id"].to_pylist()
    found, expected = known_outcomes(items, benchmark.score)
    metrics = benchmark.metrics(found)
    assert {kind: metrics[kind] for kind in SUGARCREPE} == pytest.approx(expected.to_dict())
    assert metrics["all (mean over types)"] == pytest.approx(expected.mean())
    weights = pd.Series(SUGARCREPE)
    swap = weights[["swap_obj", "swap_att"]]
    assert metrics["swap (mean over items)"] == pytest.approx((expected * swap).sum() / swap.sum())
    assert metrics["all (mean over items)"] == pytest.approx((expected * weights).sum() / weights.sum())
    assert 40 < metrics[BLIND] < 60  # a caption-only scorer is near 50


def test_sugarcrepe_groups_in_both_averages() -> None:
    types = {"replace_obj": 90.92, "replace_att": 80.08, "replace_rel": 69.20}
    found = sugarcrepe.averages(types, SUGARCREPE)
    assert found["replace (mean over items)"] == pytest.approx(80.76, abs=0.005)
    assert found["replace (mean over types)"] == pytest.approx(80.07, abs=0.005)


# --- VALSE ------------------------------------------------------------------------------------------------------------


@needs_files
def test_valse_loads_whole() -> None:
    benchmark, folder = valse.BENCHMARKS["valse"], SHARED_FILES / "valse"
    assert len(files.check(benchmark, folder)) == 11
    items = benchmark.load(folder)
    assert Counter(items["slice"].to_pylist()) == VALSE
    assert items.num_rows == 7702
    found, expected = known_outcomes(items, benchmark.score)
    metrics = benchmark.metrics(found)
    assert {name: metrics[name] for name in VALSE} == pytest.approx(expected.to_dict())
    assert metrics["mean of 11 files"] == pytest.approx(expected.mean())


def test_valse_averages_in_print() -> None:
    found = valse.averages(CE_CLIP)
    assert found["mean of 11 files"] == pytest.approx(72.45, abs=0.005)
    assert found["mean of 9 columns"] == pytest.approx(74.23, abs=0.005)
    assert found["mean of 7 phenomena"] == pytest.approx(75.49, abs=0.005)


def test_valse_keeps_valid_items_only(tmp_path: Path) -> None:
    """One item that one annotator of three chose and the model gets right, one that two chose and it gets wrong."""
    entry = {"dataset": "coco2017", "image_file": "1.jpg"}
    chosen = {
        "a": {**entry, "caption": "one", "foil": "two", "mturk": {"caption": 1}},
        "b": {**entry, "caption": "three", "foil": "four", "mturk": {"caption": 2}},
    }
    for name in valse.FILES:
        (tmp_path / f"{name}.json").write_text(json.dumps(chosen if name == "plurals" else {"b": chosen["b"]}))
    items = valse.load(tmp_path)
    assert items.num_rows == 11
    exam = ByText({"one": 1.0, "two": 0.0, "three": 0.3, "four": 0.4})
    benchmark = valse.BENCHMARKS["valse"]
    assert benchmark.metrics(benchmark.score(items, exam))["plurals"] == 0


# --- ARO --------------------------------------------------------------------------------------------------------------


def outcomes(name: str, right: Sequence[tuple[str, float]]) -> pa.Table:
    """Outcomes of (slice, success), with a control that is always wrong."""
    n = len(right)
    items = pa.table({"item_id": [f"{i:04}" for i in range(n)], "group": pa.array(range(n), pa.int64())})
    slices, values = [kind for kind, _ in right], np.array([value for _, value in right])
    return pa.concat_tables(
        [table(name, ACCURACY, items, values, values, slices), table(name, BLIND, items, 0 * values, values, slices)]
    )


def test_vg_relation_is_a_mean_over_kept_relations() -> None:
    found = aro.vg_metrics(outcomes("vg_relation", [("above", 1), ("above", 0), ("under", 1), *[("near", 0)] * 5]))
    assert found[aro.MACRO] == pytest.approx(75.0)
    assert found[aro.MICRO] == pytest.approx(200 / 3)
    assert len(aro.RELATIONS) == 48


def test_vg_attribution_skips_rare_pairs() -> None:
    rows = [("old_red", 1.0)] * 24 + [("wet_tall", 1.0)] * 20 + [("wet_tall", 0.0)] * 5
    assert aro.vg_metrics(outcomes("vg_attribution", rows))[aro.MACRO] == pytest.approx(80.0)


def test_vg_pictures_are_cut_to_the_box(tmp_path: Path) -> None:
    entry = {
        "image_path": "7.jpg", "bbox_x": 3, "bbox_y": 4, "bbox_w": 10, "bbox_h": 20, "relation_name": "above",
        "true_caption": "a above b", "false_caption": "b above a",
    }  # fmt: skip
    path = tmp_path / "visual_genome_relation.json"
    path.write_text(json.dumps([entry]))
    benchmark = aro.BENCHMARKS["vg_relation"]
    asked: list[Picture] = []
    exam = RandomExam(0)
    exam.match = lambda pictures, texts: (asked.extend(pictures), np.zeros(1, np.float32))[1]  # type: ignore[method-assign]
    benchmark.score(benchmark.load(tmp_path), exam)
    assert set(asked) == {Picture("aro/images/7.jpg", (3.0, 4.0, 13.0, 24.0))}
    path.write_text(json.dumps([{**entry, "bbox_w": 0}]))
    with pytest.raises(UserError, match=r"entry 0: field `bbox_w`"):
        benchmark.load(tmp_path)
    path.write_text(json.dumps([{**entry, "relation_name": "near"}]))
    with pytest.raises(UserError, match="no relation or pair of attributes counts"):
        benchmark.load(tmp_path)


def test_order_options_are_made_once_and_kept(tmp_path: Path) -> None:
    coco_order(tmp_path)
    folder, benchmark = tmp_path / "coco_order", aro.BENCHMARKS["coco_order"]
    first = benchmark.load(folder)
    made = (folder / word_order.FILE).read_bytes()
    assert benchmark.load(folder).equals(first)
    assert word_order.FILE in files.check(benchmark, folder)  # so its hash stands in the record
    (folder / word_order.FILE).unlink()
    benchmark.load(folder)
    assert (folder / word_order.FILE).read_bytes() == made
    for options in first["options"].to_pylist():
        assert len(options) == 5
        letters = {"".join(sorted(option.replace(" ", ""))) for option in options}
        assert len(letters) == 1  # the same letters in another order
    captions = folder / "coco_karpathy_test.json"
    captions.write_text(captions.read_text().replace("donkey", "mule"))
    with pytest.raises(UserError, match=r"order_options\.json: was made of other captions"):
        benchmark.load(folder)


def test_orders_of_words() -> None:
    tagged = [("the", "DET"), ("red", "ADJ"), ("dog", "NOUN"), ("chases", "VERB"), ("a", "DET"), ("fat", "ADJ"),
              ("cat", "NOUN")]  # fmt: skip
    words = [word for word, _ in tagged]
    for seed in range(20):
        named, others, within, among = word_order.orders(tagged, np.random.default_rng(seed))
        assert [named[i] for i in (0, 3, 4)] == ["the", "chases", "a"]
        assert {named[2], named[6]} == {"dog", "cat"}
        assert {named[1], named[5]} == {"red", "fat"}
        assert [others[i] for i in (1, 2, 5, 6)] == ["red", "dog", "fat", "cat"]
        assert [set(within[i : i + 3]) for i in (0, 3, 6)] == [set(words[i : i + 3]) for i in (0, 3, 6)]
        assert sorted(among) == sorted(words)
        assert any(among[i : i + 3] == words[:3] for i in range(5))


def test_order_ties_are_told_apart_by_rule(tmp_path: Path) -> None:
    """Two words have no other order of their kinds: all options tie, which the released code counts as success."""
    (tmp_path / "coco_karpathy_test.json").write_text(json.dumps([{"image": "val2014/1.jpg", "caption": ["Stop"]}]))
    benchmark = aro.BENCHMARKS["coco_order"]
    found = benchmark.metrics(benchmark.score(benchmark.load(tmp_path), RandomExam(3)))
    assert (found[aro.P1], found[aro.P1 + OFFICIAL]) == (0, 100)


# --- VL-CheckList -----------------------------------------------------------------------------------------------------


def test_vl_checklist_average_is_over_leaves() -> None:
    printed = {
        "Attribute/action": 75.6, "Attribute/color": 72.7, "Attribute/material": 79.7, "Attribute/size": 65.3,
        "Attribute/state": 69.8, "Object/Location": 84.8, "Object/Size": 84.5, "Relation/action": 78.5,
        "Relation/spatial": 65.0,
    }  # fmt: skip
    assert set(printed) == set(vl_checklist.LEAVES)
    found = vl_checklist.averages(printed)
    assert found["mean of 9 leaves"] == pytest.approx(75.10, abs=0.005)
    assert found["mean of 3 groups"] == pytest.approx(76.34, abs=0.005)


def test_vl_checklist_leaf_is_a_mean_of_data_sets_of_files() -> None:
    """Location: (center: vg (0.2 and 0.4), swig 0.9; mid: hake 0.8); 56 files in all."""
    location = "Object/Location"
    shares = pd.Series({
        f"{location}/center/vg_obj": 0.2, f"{location}/center/vg_subj": 0.4, f"{location}/center/swig_tool": 0.9,
        f"{location}/mid/hake": 0.8, "Relation/spatial/vg": 0.5,
    })  # fmt: skip
    assert vl_checklist.leaves(shares) == pytest.approx({location: 70.0, "Relation/spatial": 50.0})
    assert len(set(vl_checklist.FILES.values())) == 56


def test_vl_checklist_cap_takes_the_first_thousand() -> None:
    n = 1500
    items = pa.table({
        "item_id": [f"Relation/spatial/vg#{i}" for i in range(n)], "group": pa.array(range(n), pa.int64())
    })  # fmt: skip
    right, slices = np.arange(n) < 900, ["Relation/spatial/vg"] * n
    tables = [table("vl_checklist", name, items, right, right, slices) for name in (ACCURACY, BLIND)]
    found = vl_checklist.metrics(pa.concat_tables(tables))
    assert found["Relation/spatial"] == pytest.approx(60.0)
    assert found["Relation/spatial (first 1000)"] == pytest.approx(90.0)
    assert found[SHARED] == 100
    assert found[SEEN] == 0


# --- SugarCrepe++, Winoground -----------------------------------------------------------------------------------------


def test_equal_texts_never_count(tmp_path: Path) -> None:
    """Two official items have caption == negative_caption."""
    for kind in sugarcrepe_pp.TYPES:
        entry = {"id": 0, "filename": "1.jpg", "caption": "a b", "caption2": "b is a", "negative_caption": "a b"}
        (tmp_path / f"{kind}.json").write_text(json.dumps([entry]))
    found = sugarcrepe_pp.metrics(sugarcrepe_pp.score(sugarcrepe_pp.load(tmp_path), RandomExam(2)))
    assert (found["ITT"], found["TOT"]) == (0, 0)


@pytest.mark.parametrize(("last", "expected"), [(0.85, (1, 1, 1)), (0.75, (1, 0, 0))])
def test_winoground_scores(last: float, expected: tuple[int, int, int], tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(
        json.dumps({"image_0": "i0", "image_1": "i1", "caption_0": "c0", "caption_1": "c1"}) + "\n"
    )
    scores = {("i0", "c0"): 0.9, ("i0", "c1"): 0.8, ("i1", "c0"): 0.7, ("i1", "c1"): last}
    exam = RandomExam(0)
    exam.match = lambda pictures, texts: np.array(  # type: ignore[method-assign]
        [scores[Path(p.path).stem, t] for p, t in zip(pictures, texts, strict=True)], np.float32
    )
    found = winoground.metrics(winoground.score(winoground.load(tmp_path), exam))
    assert tuple(found[name] for name in ("text", "image", "group")) == tuple(100 * value for value in expected)


def test_a_pairwise_tie_is_wrong() -> None:
    items = pa.table({
        "item_id": ["a", "b"], "group": pa.array([0, 1], pa.int64()), "slice": ["", ""], "picture": ["1", "2"],
        "caption": ["p", "q"], "foil": ["r", "s"],
    })  # fmt: skip
    exam = ByText({"p": 0.3, "r": 0.3, "q": 0.3, "s": 0.3 - TIE / 2})
    from training.official.pairs import score_pairs

    found = score_pairs("x", items, exam).to_pandas()
    assert found[found.metric == ACCURACY].outcome.tolist() == [0, 0]
    assert found[found.metric == ACCURACY].detail.tolist() == pytest.approx([0, 0], abs=1e-6)


# --- intervals --------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_of_means() -> None:
    """Against a bootstrap that recomputes the metric on resampled groups."""
    chance = np.random.default_rng(5)
    rows = [(kind, float(chance.random() < p)) for kind, p, n in (("above", 0.9, 40), ("under", 0.5, 300))
            for _ in range(n)]  # fmt: skip
    benchmark, found = aro.BENCHMARKS["vg_relation"], outcomes("vg_relation", rows)
    low, high = intervals.headline(benchmark, found)
    value = benchmark.metrics(found)[aro.MACRO]
    generator = np.random.default_rng(1)
    draws = [benchmark.metrics(intervals._resampled(found, generator))[aro.MACRO] for _ in range(300)]
    assert low < value < high
    assert (high - low) / 4 == pytest.approx(np.std(draws), rel=0.15)


def test_interval_of_what_is_not_linear() -> None:
    """A share of shares is recomputed on resampled groups, and covers its value."""
    import dataclasses

    rows = [("above", float(i % 3 > 0)) for i in range(120)]
    found = outcomes("vg_relation", rows)

    def squared(table: pa.Table) -> dict[str, float]:
        return {"x": 100 * (aro.vg_metrics(table)[aro.MACRO] / 100) ** 2}

    benchmark = dataclasses.replace(aro.BENCHMARKS["vg_relation"], metrics=squared, headline="x")
    low, high = intervals.headline(benchmark, found)
    assert low < squared(found)["x"] < high
    assert 8 < high - low < 40


def test_constant_scores_have_ties_for_every_item() -> None:
    from training.official.run import ties

    items = pa.table({"item_id": ["a", "b"], "group": pa.array([0, 1], pa.int64()), "slice": ["", ""],
                      "picture": ["1", "2"], "caption": ["p", "q"], "foil": ["r", "s"]})  # fmt: skip
    from training.official.pairs import score_pairs

    assert ties(score_pairs("x", items, ConstantExam())) == 2
