"""Run rules with Great Expectations, the only module that imports it, and write its Data Docs."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.expectations import ROW, Finding, Rule
from data.gx_docs import stand_alone

if TYPE_CHECKING:
    import pandas as pd

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # a run time is asked for; the record has the real one


class Suite:
    """The rules as a Great Expectations suite in a context of its own, in memory."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx
        from great_expectations import expectations as gxe
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.rules = {rule.name: rule for rule in rules}
        self.name = name
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        expectations = [
            getattr(gxe, rule.expectation)(
                column=rule.column, severity=rule.severity, meta={"rule": rule.name}, **rule.arguments,
                description=f"{rule.name} ({rule.severity}). Broken where: {rule.description}",
            )
            for rule in rules
        ]  # fmt: skip
        source = self.context.data_sources.add_pandas("drop").add_dataframe_asset("products")
        self.definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(
                name="landing",
                data=source.add_batch_definition_whole_dataframe("all"),
                suite=self.context.suites.add(gx.ExpectationSuite(name="catalog", expectations=expectations)),
            )
        )

    def run(self, table: pd.DataFrame) -> list[Finding]:
        """One finding per rule, in the rules' order.

        Raises RuntimeError if Great Expectations could not evaluate a rule, which is a mistake in the rule.
        """
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        checkpoint = gx.Checkpoint(
            name="landing", validation_definitions=[self.definition],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [ROW, "id"]},
        )  # fmt: skip
        result = self.context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": table}, run_id=RunIdentifier(run_name=self.name, run_time=EPOCH)
        )
        (validation,) = result.run_results.values()
        outcomes = {_rule_name(item): item for item in validation.results}
        return [_finding(rule, outcomes[name], table) for name, rule in self.rules.items()]

    def write_docs(self, folder: Path) -> None:
        """Data Docs of the last run, `index.html` first; the same run gives the same bytes, which need no network."""
        self._escape_results()
        site = folder / ".site"
        self.context.add_data_docs_site("docs", _site(site))
        self.context.build_data_docs(site_names=["docs"])
        stand_alone(site, folder)

    def _escape_results(self) -> None:
        """Data Docs print offending values as they are, so a title with markup would run in the reader's browser."""
        store = self.context.validation_results_store
        for key in store.list_keys():
            validation: Any = store.get(key)
            for outcome in validation.results:
                outcome.result = _escaped(outcome.result)
            store.set(key, validation)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


def _rule_name(outcome: Any) -> str:
    return outcome.expectation_config.meta["rule"]


def _finding(rule: Rule, outcome: Any, table: pd.DataFrame) -> Finding:
    if "unexpected_index_list" not in outcome.result:
        raise RuntimeError(f"rule {rule.name} could not be evaluated: {outcome.exception_info}")
    offending = outcome.result["unexpected_index_list"] or []
    found = sorted(((int(item[ROW]), item[rule.column]) for item in offending), key=lambda pair: pair[0])
    rows = [row for row, _ in found]
    groups = int(table[rule.groups_by].iloc[rows].nunique()) if rule.groups_by else None
    return Finding(rule=rule, rows=rows, values=[value for _, value in found], groups=groups)


def _site(docs: Path) -> Any:
    return {
        "class_name": "SiteBuilder", "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    }  # fmt: skip
