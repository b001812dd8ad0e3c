"""Let Great Expectations judge a drop and write its Data Docs; the only importer of the package.

Two layers: data/violations.py finds the offending rows of the whole table, and Great Expectations evaluates the same
expectations on a batch that holds up to `SHOWN` of them per rule and the drop's first rows. Its verdicts must agree,
and its results then carry the whole table's counts, so results and Data Docs are what a run over all rows would give.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import reports
from data.expectations import ODD_TEXT, ROW, Finding, Rule
from data.gx_docs import stand_alone

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # a run time is asked for; the record has the real one
SHOWN = 50  # offending rows of one rule, and first rows, that Great Expectations sees
FORMAT = {"result_format": "COMPLETE", "unexpected_index_column_names": [ROW, "id"]}


class Suite:
    """The rules as a Great Expectations suite in a context of its own, in memory."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.rules = {rule.name: rule for rule in rules}
        self.name = name
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.source = self.context.data_sources.add_pandas("drop")
        self.definition = self._define("catalog", rules)
        self.findings: dict[str, Finding] = {}
        self.table: pa.Table | None = None

    def run(self, table: pa.Table) -> list[Finding]:
        """One finding per rule, in the rules' order, for a table made by `expectations.frame`.

        Raises RuntimeError if Great Expectations could not evaluate a rule, or found something else than the vectorised
        pass: either is a mistake in the rule.
        """
        from data.violations import find_all

        self.table = table
        self.findings = {finding.rule.name: finding for finding in find_all(self.rules.values(), table)}
        outcomes = self.judge(batch(table, list(self.findings.values())), FORMAT)
        for name, finding in self.findings.items():
            _check_agreement(finding, outcomes[name])
        return list(self.findings.values())

    def judge(self, table: pd.DataFrame, result_format: dict[str, Any]) -> dict[str, Any]:
        """{rule: Great Expectations' own outcome} for the rows of a table."""
        return self._run(self.definition, table, result_format)

    def run_drift(self, rules: Sequence[Rule], table: pd.DataFrame) -> list[dict[str, Any]]:
        """{name, passed, and what `drift.measure` says} per rule, for a table made by `drift_sample.sample`."""
        outcomes = self._run(self._define("drift", rules), table, {"result_format": "SUMMARY"})
        for rule in rules:
            if "details" not in outcomes[rule.name].result:
                raise RuntimeError(f"rule {rule.name} could not be evaluated: {outcomes[rule.name].exception_info}")
        return [
            {"name": rule.name, "passed": outcomes[rule.name].success, **outcomes[rule.name].result["details"]}
            for rule in rules
        ]

    def write_docs(self, folder: Path) -> None:
        """Data Docs of the last run, `index.html` first; the same run gives the same bytes, which need no network."""
        self._finish_results()
        site = folder / ".site"
        self.context.add_data_docs_site("docs", _site(site))
        self.context.build_data_docs(site_names=["docs"])
        stand_alone(site, folder)

    def _define(self, name: str, rules: Sequence[Rule]) -> Any:
        import great_expectations as gx

        expectations = [
            _classes()[rule.expectation](
                severity=rule.severity, meta={"rule": rule.name}, **rule.settings,
                description=f"{rule.name} ({rule.severity}). Broken where: {rule.description}",
            )
            for rule in rules
        ]  # fmt: skip
        asset = self.source.add_dataframe_asset(name)
        return self.context.validation_definitions.add(
            gx.ValidationDefinition(
                name=name,
                data=asset.add_batch_definition_whole_dataframe("all"),
                suite=self.context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations)),
            )
        )

    def _run(self, definition: Any, table: pd.DataFrame, result_format: dict[str, Any]) -> dict[str, Any]:
        """{rule: outcome}"""
        from great_expectations.core.run_identifier import RunIdentifier

        run_id = RunIdentifier(run_name=self.name, run_time=EPOCH)
        validation = definition.run(batch_parameters={"dataframe": table}, result_format=result_format, run_id=run_id)
        return {_rule_name(item): item for item in validation.results}

    def _finish_results(self) -> None:
        """Give the stored results the whole table's counts, and make their values safe to print.

        Data Docs print offending values as they are, so a title with markup would run in the reader's browser.
        """
        store = self.context.validation_results_store
        for key in store.list_keys():
            validation: Any = store.get(key)
            for outcome in validation.results:
                finding = self.findings.get(_rule_name(outcome))
                counted = {} if finding is None or self.table is None else _counts(finding, outcome.result, self.table)
                outcome.result = _escaped(outcome.result | counted)
            store.set(key, validation)


def batch(table: pa.Table, findings: Sequence[Finding]) -> pd.DataFrame:
    """The rows that Great Expectations sees: the first ones, and up to `SHOWN` offending ones per rule."""
    import pandas as pd
    import pyarrow as pa

    chosen = [np.arange(min(SHOWN, len(table))), *(_shown(finding, table) for finding in findings)]
    used = {name for finding in findings for name in finding.rule.looks_at} | {ROW, "id"}
    rows = table.select(sorted(used)).take(pa.array(np.unique(np.concatenate(chosen))))
    columns = {}
    for name in rows.column_names:
        is_text = pa.types.is_large_string(rows[name].type)
        columns[name] = pd.Series(rows[name].to_pylist(), dtype=object) if is_text else rows[name].to_pandas()
    return pd.DataFrame(columns)


def _shown(finding: Finding, table: pa.Table) -> np.ndarray:
    """Up to `SHOWN` offending rows; where rows offend together, those that do so are side by side and not cut apart."""
    import pandas as pd
    import pyarrow as pa

    if not finding.rule.groups_by or finding.count <= SHOWN:
        return finding.rows[:SHOWN]
    group = table[finding.rule.groups_by].take(pa.array(finding.rows)).to_pandas()
    values = pd.Series(finding.values.to_pandas())
    order = pd.DataFrame({"group": group.factorize()[0], "copy": values.groupby(values).cumcount()})
    order = order.sort_values(["group", "copy"], kind="stable").head(SHOWN)
    last = order["group"].iloc[-1]
    if (order["group"] == last).sum() == 1:  # its partners were cut off
        order = order.iloc[:-1]
    return finding.rows[order.index.to_numpy()]


def _check_agreement(finding: Finding, outcome: Any) -> None:
    """Great Expectations must see the rule broken exactly if it is, and only by rows that the vectorised pass names."""
    if "unexpected_index_list" not in outcome.result:
        raise RuntimeError(f"rule {finding.rule.name} could not be evaluated: {outcome.exception_info}")
    seen = np.array([item[ROW] for item in outcome.result["unexpected_index_list"] or []], dtype=np.int64)
    if bool(len(seen)) != bool(finding.count) or not np.isin(seen, finding.rows).all():
        other = np.setdiff1d(seen, finding.rows)[:5].tolist()
        raise RuntimeError(
            f"rule {finding.rule.name}: Great Expectations finds {len(seen)} rows (others: {other}), "
            f"the vectorised pass {finding.count}"
        )


def _counts(finding: Finding, result: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    """The numbers of a result that speak of the whole table."""
    total, wrong = len(table), finding.count
    derived = finding.rule.column == ODD_TEXT or "column_list" in finding.rule.arguments  # null says: nothing wrong
    of_nulls = finding.rule.expectation == "ExpectColumnValuesToNotBeNull"  # then they are the offending rows
    missing = 0 if derived or of_nulls else table[finding.rule.column].null_count
    share = 100 * wrong / max(total - missing, 1)
    counts = {
        "element_count": total, "unexpected_count": wrong, "unexpected_percent": share,
        "missing_count": missing, "missing_percent": 100 * missing / max(total, 1),
        "unexpected_percent_total": 100 * wrong / max(total, 1), "unexpected_percent_nonmissing": share,
    }  # fmt: skip
    return {name: number for name, number in counts.items() if name in result}


def _classes() -> dict[str, Any]:
    """Every expectation by name, the stock ones and our own."""
    from great_expectations import expectations as stock

    from data import expectations_custom as own

    return {name: found for module in (stock, own) for name, found in vars(module).items() if name[:6] == "Expect"}


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(reports.quoted(value))
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


def _rule_name(outcome: Any) -> str:
    return outcome.expectation_config.meta["rule"]


def _site(docs: Path) -> Any:
    return {
        "class_name": "SiteBuilder", "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    }  # fmt: skip
