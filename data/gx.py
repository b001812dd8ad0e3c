"""Run rules with Great Expectations and write its Data Docs; the only module that imports it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.expectations import ROW, Finding, Rule

if TYPE_CHECKING:
    import pandas as pd

# Data Docs would else carry the time of the run: the same drop must give the same files, wherever it lands.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_LOGO = re.compile(r"<img\b[^>]*great-expectations-web-assets[^>]*>", re.DOTALL)  # fetched from their server


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
                column=rule.column, severity=rule.severity, description=f"{rule.name}: {_statement(rule)}",
                meta={"rule": rule.name}, **rule.arguments,
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
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [ROW]},
        )  # fmt: skip
        result = self.context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": table}, run_id=RunIdentifier(run_name=self.name, run_time=EPOCH)
        )
        (validation,) = result.run_results.values()
        outcomes = {_rule_name(item): item for item in validation.results}
        return [_finding(rule, outcomes[name], table) for name, rule in self.rules.items()]

    def write_docs(self, folder: Path) -> None:
        """Data Docs of the suite and of the last run, `index.html` first; the same run gives the same bytes."""
        self.context.add_data_docs_site("docs", _site(folder))
        self.context.build_data_docs(site_names=["docs"])
        _make_reproducible(folder)


def _rule_name(outcome: Any) -> str:
    return outcome.expectation_config.meta["rule"]


def _finding(rule: Rule, outcome: Any, table: pd.DataFrame) -> Finding:
    if outcome.exception_info.get("raised_exception"):
        raise RuntimeError(f"rule {rule.name}: {outcome.exception_info.get('exception_message')}")
    offending = outcome.result["unexpected_index_list"] or []
    found = sorted(((item[ROW], item[rule.column]) for item in offending), key=lambda pair: pair[0])
    rows = [row for row, _ in found]
    groups = int(table[rule.groups_by].iloc[rows].nunique()) if rule.groups_by else None
    return Finding(rule=rule, rows=rows, values=[value for _, value in found], groups=groups)


def _statement(rule: Rule) -> str:
    return f"no row for which this holds: {rule.description}"


def _site(docs: Path) -> Any:
    return {
        "class_name": "SiteBuilder", "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    }  # fmt: skip


def _make_reproducible(docs: Path) -> None:
    """Times, random ids and pictures from elsewhere out of the pages; animations that no page shows deleted."""
    for picture in (docs / "static" / "images").glob("*.gif"):
        picture.unlink()
    for page in sorted(docs.rglob("*.html")):
        seen: dict[str, str] = {}
        text = _LOGO.sub("", page.read_text(encoding="utf-8"))
        text = _TIME.sub(EPOCH.strftime("%Y%m%dT%H%M%S.%fZ"), text)
        page.write_text(_UUID.sub(lambda m: seen.setdefault(m[0], f"id-{len(seen)}"), text), encoding="utf-8")  # noqa: B023
