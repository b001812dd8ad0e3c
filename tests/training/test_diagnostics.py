"""Exams that are shown but decide nothing: category recognition and robustness, by hand and by definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.builders import FakeExaminee, attribute_items, composed_items, retrieval_items
from training.benchmarks import BENCHMARKS, category, of_endpoint, robustness, sat_for
from training.evaluate import without_looking
from training.outcomes import Examinee, cells, column, outcome_table

CATALOG = BENCHMARKS["catalog_retrieval"]
SHOWN = {
    "search": {"category", "robustness_search"}, "compose": {"robustness_compose"},
    "attributes": {"robustness_attributes"},
}  # fmt: skip
SEARCH, COMPOSE, ATTRIBUTES = (BENCHMARKS[f"robustness_{endpoint}"] for endpoint in SHOWN)


class Answering(FakeExaminee):
    """Gives the probabilities it was made with."""

    def __init__(self, names: list[str], probabilities: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.answers = (names, np.array(probabilities, np.float32))

    def attributes(self, keys: Sequence[str], texts: Sequence[str | None]) -> dict[str, tuple[list[str], np.ndarray]]:
        assert set(texts) == {None}, "the title would tell"
        return {"article_type": self.answers}


class Unshaken(FakeExaminee):
    """Disturbances leave its photos as they are."""

    def disturbed(self, keys: Sequence[str], kind: str) -> list[str]:
        return list(keys)


def category_items(labels: Sequence[str]) -> pa.Table:
    n = len(labels)
    return pa.table({
        "item_id": [f"k{i:03}" for i in range(n)], "image_key": [f"p{i}" for i in range(n)],
        "group": pa.array(range(n), pa.int64()), "task": ["article_type"] * n, "label": list(labels),
        "commonest": ["Shirts"] * n,
    })  # fmt: skip


@pytest.mark.parametrize("endpoint", SHOWN)
def test_the_gate_does_not_compare_them(endpoint: str) -> None:
    assert set(sat_for(endpoint)) - set(of_endpoint(endpoint)) == SHOWN[endpoint]
    assert all(benchmark.gate_metrics for benchmark in of_endpoint(endpoint).values())


class TestCategory:
    def test_the_likeliest_type_and_no_tie(self) -> None:
        items = category_items(["Shirts", "Caps", "Caps", "Caps"])
        asked = Answering(["Caps", "Shirts"], [[0.4, 0.6], [0.3, 0.7], [0.8, 0.2], [0.5, 0.5]])
        found = cells(category.BENCHMARK.score(items, asked))
        assert column(found["category", "accuracy"], "outcome").tolist() == [1, 0, 1, 0]
        assert column(found["category", "accuracy"], "detail") == pytest.approx([0.6, 0.7, 0.8, 0.5])
        assert column(found["category", "blind_accuracy"], "outcome").tolist() == [1, 0, 0, 0]

    def test_mean_per_type(self) -> None:
        """Type A 9 of 10, type B 0 of 1: 45 %, where the accuracy is 81.8 %."""
        items = category_items([*["A"] * 10, "B"])
        right = np.array([True] * 9 + [False] * 2)
        outcomes = outcome_table("category", "accuracy", items, right, np.ones(11), items["label"].to_pylist())
        found = category.per_type(outcomes)["mean_per_type"]
        assert found["value"] == pytest.approx(0.45)
        assert found["low"] <= 0.45 <= found["high"]
        assert found["n"] == 11

    def test_only_article_types_are_asked(self) -> None:
        asked = category.BENCHMARK.only(attribute_items(24))
        assert set(asked["task"].to_pylist()) == {"article_type"}

    def test_a_model_without_types_is_told(self) -> None:
        class Without(FakeExaminee):
            def attributes(
                self, keys: Sequence[str], texts: Sequence[str | None]
            ) -> dict[str, tuple[list[str], np.ndarray]]:
                return {"gender": (["Men"], np.ones((len(keys), 1), np.float32))}

        with pytest.raises(UserError, match="answers gender but not article_type"):
            category.BENCHMARK.score(category_items(["Shirts"]), Without())


class TestRobustness:
    @pytest.mark.parametrize(
        ("benchmark", "items"),
        [(SEARCH, retrieval_items(30)), (COMPOSE, composed_items(40)), (ATTRIBUTES, attribute_items(40))],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_what_a_disturbance_leaves_alone_scores_as_before(self, benchmark, items) -> None:  # type: ignore[no-untyped-def]
        found = _outcomes(benchmark, items, Unshaken())
        assert found["blur"] == found["crop"] == found["noise"] == found["clean"]
        shaken = _outcomes(benchmark, items, FakeExaminee())
        assert shaken["clean"] == found["clean"]
        assert shaken["blur"] != shaken["clean"]
        assert set(found) == {"clean", "blur", "crop", "noise"} | ({"no"} if benchmark is ATTRIBUTES else set())

    def test_clean_is_the_catalog_s_own_exam_from_photo_to_title(self) -> None:
        """Two products with one title, two with one photo: both are right, as there."""
        titles = ["twin", "twin", *(f"t{i}" for i in range(28))]
        photos = ["p0", "p1", "p1", *(f"p{i}" for i in range(3, 30))]
        items = retrieval_items(30, titles, photos)
        whole = cells(CATALOG.score(items, FakeExaminee()))["catalog_retrieval", "i2t_R@10"]
        found = cells(SEARCH.score(items, FakeExaminee()))["robustness_search", "clean_R@10"]
        assert column(found, "detail").tolist() == column(whole, "detail").tolist()

    def test_the_sample_is_the_smallest_ids_and_ranks_are_among_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(robustness, "ITEMS", 5)
        items = retrieval_items(60)
        found = cells(SEARCH.score(items, FakeExaminee()))["robustness_search", "clean_R@10"]
        assert found["item_id"].to_pylist() == [f"r{i:03}" for i in range(5)]
        assert column(found, "detail").max() > 5

    def test_without_the_title_is_what_is_answered_to_none(self) -> None:
        items = attribute_items(40)
        blank = items.set_column(items.column_names.index("title"), "title", pa.array([""] * 40))
        asked, told = (_outcomes(ATTRIBUTES, which, FakeExaminee()) for which in (blank, items))
        assert told["no"] == asked["clean"] != told["clean"]

    def test_suite_and_dataset_that_do_not_fit(self) -> None:
        with pytest.raises(UserError, match=r"photo 'elsewhere' is not of the test split"):
            COMPOSE.score(composed_items(4, [["elsewhere"]] * 4), FakeExaminee())


def _outcomes(benchmark, items: pa.Table, examinee: Examinee) -> dict[str, list[float]]:  # type: ignore[no-untyped-def]
    """{way: what decided each item}."""
    found = cells(benchmark.score(items, examinee)).items()
    return {metric.partition("_")[0]: column(cell, "detail").tolist() for (_, metric), cell in found}


def test_what_one_gets_without_looking() -> None:
    """Of four items the model solves 0, 1 and 2, the control 0 and 3: one in common."""
    items = pa.table({"item_id": list("abcd"), "group": pa.array(range(4), pa.int64())})
    tables = [
        outcome_table("compositional", metric, items, np.array(right, bool), np.zeros(4))
        for metric, right in (("accuracy", [1, 1, 1, 0]), ("blind_accuracy", [1, 0, 0, 1]))
    ]
    (row,) = without_looking(pa.concat_tables(tables))
    assert [row[key] for key in ("model %", "control %", "both %", "model alone %", "control alone %")] == [
        "75.0", "50.0", "25.0", "50.0", "25.0",
    ]  # fmt: skip
    assert row["model, where the control is wrong %"] == "100.0"
