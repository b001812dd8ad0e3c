"""Great Expectations of our own, for what the stock ones cannot say. Importing this module imports the package.

Each is a class of Great Expectations with its metric, so suites, results and Data Docs treat it like any other. They
are registered when the classes are made, which is why data/gx.py imports this module and nothing else does.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pandas as pd
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import (
    BatchExpectation,
    ColumnMapExpectation,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.metrics.map_metric_provider.multicolumn_condition_partial import (
    multicolumn_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.multicolumn_map_metric_provider import (
    MulticolumnMapMetricProvider,
)
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from great_expectations.render.components import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer

from data import drift, reports
from data.contradictions import ABOUT


class ColumnValuesDifferWhenFolded(ColumnMapMetricProvider):
    """Whether no other value has the same `reports.id_key`. Equal values are `ExpectColumnValuesToBeUnique`'s."""

    condition_metric_name = "column_values.differ_when_folded"

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, **_: Any) -> pd.Series:
        keys = column.astype(object).map(reports.id_key)
        return column.groupby(keys).transform("nunique") == 1


class ExpectColumnValuesToDifferWhenFolded(ColumnMapExpectation):
    """Expect that no two different values are equal once letter case and Unicode form are set aside."""

    map_metric = "column_values.differ_when_folded"

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None,
                               **_: Any) -> list[RenderedStringTemplateContent]:  # fmt: skip
        return _sentence("$column: different values must differ in more than letter case and Unicode form.",
                         {"column": configuration.kwargs["column"]}, runtime_configuration)  # fmt: skip


class TitleAgreesWithAttribute(MulticolumnMapMetricProvider):
    """Whether `contradictions.ABOUT[about]` finds nothing in a row."""

    condition_metric_name = "multicolumn_values.title_agrees"
    condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")
    condition_value_keys = ("about",)

    @multicolumn_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column_list: pd.DataFrame, about: str, **_: Any) -> pd.Series:
        find, texts = ABOUT[about].find, column_list.astype(object).where(column_list.notna(), "")
        agrees = [find(*row) is None for row in texts.itertuples(index=False)]
        return pd.Series(agrees, index=column_list.index, dtype=bool)


class ExpectTitleToAgreeWithAttribute(MulticolumnMapExpectation):
    """Expect a title (the first column) to name nothing that contradicts the attribute beside it."""

    about: Literal["colour", "gender", "article", "season"]

    map_metric = "multicolumn_values.title_agrees"
    success_keys = ("about", "mostly")
    args_keys = ("column_list", "about")

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None,
                               **_: Any) -> list[RenderedStringTemplateContent]:  # fmt: skip
        values = {"title": configuration.kwargs["column_list"][0], "attribute": configuration.kwargs["column_list"][1],
                  "about": configuration.kwargs["about"]}  # fmt: skip
        return _sentence("$title must not name another $about than $attribute.", values, runtime_configuration)


class FeatureDrift(TableMetricProvider):
    """`drift.measure` of a table made by `drift.table`: how far a drop's feature lies from the last dataset's."""

    metric_name = "table.feature_drift"
    value_keys = ("feature",)

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(cls, execution_engine: PandasExecutionEngine, metric_domain_kwargs: dict[str, Any],
                metric_value_kwargs: dict[str, Any], **_: Any) -> dict[str, Any]:  # fmt: skip
        table, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE)
        return drift.measure(table, metric_value_kwargs["feature"])


class ExpectFeatureToResembleLastDataset(BatchExpectation):
    """Expect a feature of a drop to be distributed as in the last dataset.

    It fails if the distance is above `max_distance` and chance is no explanation: p below `alpha`.
    """

    feature: str
    max_distance: float
    alpha: float

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.feature_drift",)
    success_keys: ClassVar[tuple[str, ...]] = ("feature", "max_distance", "alpha")
    args_keys: ClassVar[tuple[str, ...]] = ("feature", "max_distance", "alpha")

    def _validate(self, metrics: dict[str, Any], runtime_configuration: Any = None,
                  execution_engine: Any = None) -> dict[str, Any]:  # fmt: skip
        found = metrics["table.feature_drift"]
        drifted = found["distance"] > self.max_distance and found["p"] < self.alpha
        return {"success": not drifted, "result": {"observed_value": found["distance"], "details": found}}

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None,
                               **_: Any) -> list[RenderedStringTemplateContent]:  # fmt: skip
        template = "$feature: the distance to the last dataset must not exceed $max_distance, unless p is above $alpha."
        return _sentence(template, dict(configuration.kwargs), runtime_configuration)


def _sentence(template: str, values: dict[str, Any], runtime: Any) -> list[RenderedStringTemplateContent]:
    """A line of Data Docs with its values set off, as the stock expectations have it."""
    styling = (runtime or {}).get("styling")
    content = {"template": template, "params": values, "styling": styling}
    return [RenderedStringTemplateContent(content_block_type="string_template", string_template=content)]
