"""Our own expectations are Great Expectations' in every respect: judged, described and documented by it."""

from __future__ import annotations

from typing import Any

import great_expectations as gx
import pandas as pd
import pytest
from great_expectations.expectations.expectation import ColumnMapExpectation, MulticolumnMapExpectation
from great_expectations.expectations.registry import get_expectation_impl
from great_expectations.render.renderer.content_block import ExpectationStringRenderer

from data import expectations_custom as custom
from data.drift import ORIGIN


def validate(expectation: Any, **columns: list[Any]) -> Any:
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("test").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pd.DataFrame(columns)})
    return batch.validate(expectation, result_format="COMPLETE")


def sentence(expectation: Any) -> str:
    (block,) = ExpectationStringRenderer.render(expectation.configuration)
    template = block.string_template["template"]
    for name, value in block.string_template["params"].items():
        template = template.replace(f"${name}", str(value))
    return template


def test_they_are_registered_classes_of_great_expectations() -> None:
    assert issubclass(custom.ExpectColumnValuesToDifferWhenFolded, ColumnMapExpectation)
    assert issubclass(custom.ExpectTitleToAgreeWithAttribute, MulticolumnMapExpectation)
    name = "expect_feature_to_resemble_last_dataset"
    assert get_expectation_impl(name) is custom.ExpectFeatureToResembleLastDataset


def test_ids_that_differ_only_when_unfolded() -> None:
    expectation = custom.ExpectColumnValuesToDifferWhenFolded(column="id", severity="critical")
    found = validate(expectation, id=["ab-1", "AB-1", "x", "caf\u00e9", "cafe\u0301", "same", "same", None])
    assert not found.success
    assert found.result["unexpected_list"] == ["ab-1", "AB-1", "caf\u00e9", "cafe\u0301"]
    assert found.result["missing_count"] == 1
    assert "id: different values must differ" in sentence(expectation)


@pytest.mark.parametrize(("about", "column", "right", "wrong"), [
    ("gender", "gender", "Women", "Men"),
    ("article", "article_type", "Handbags", "Watches"),
    ("season", "season", "Summer", "Winter"),
])  # fmt: skip
def test_titles_that_disagree_with_an_attribute(about: str, column: str, right: str, wrong: str) -> None:
    expectation = custom.ExpectTitleToAgreeWithAttribute(column_list=["title", column], about=about)  # type: ignore[arg-type]
    title = "Baggit Women Summer Red Handbag"
    found = validate(expectation, title=[title, title, title, None], **{column: [right, wrong, None, wrong]})
    assert not found.success
    assert found.result["unexpected_list"] == [{"title": title, column: wrong}]
    assert f"title must not name another {about} than {column}" in sentence(expectation)


def test_drift_needs_distance_and_significance() -> None:
    def judged(new: int, limit: float) -> Any:
        expectation = custom.ExpectFeatureToResembleLastDataset(feature="gender", max_distance=limit, alpha=0.01)
        origin = ["drop"] * new + ["dataset"] * 1000
        values = ["Women"] * (new // 2) + ["Men"] * (new - new // 2) + ["Women"] * 300 + ["Men"] * 700
        return validate(expectation, **{ORIGIN: origin, "gender": values})

    many = judged(400, 0.1)
    assert not many.success
    assert many.result["observed_value"] == 0.2
    assert judged(400, 0.25).success  # significant, but not far
    assert judged(30, 0.1).success  # far, but 30 rows may lie there by chance
