"""Which rows break a rule, found for a whole table in one vectorised pass.

Great Expectations takes seconds and gigabytes for a million rows, most of it to collect offending rows one by one. Here
each expectation has its plain meaning in Arrow operations; data/gx.py then lets Great Expectations judge a batch that
holds offending rows of every rule, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data import columns
from data.expectations import Finding, Rule
from data.images import THREADS

Check = Callable[[pa.Array, dict[str, Any]], pa.Array]


def find_all(rules: Iterable[Rule], table: pa.Table) -> list[Finding]:
    """The findings of all rules, in threads: Arrow lets go of the interpreter while it works."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda rule: find(rule, table), rules))


def find(rule: Rule, table: pa.Table) -> Finding:
    """The finding of a rule in a table made by `expectations.frame`. Raises RuntimeError for a mistaken rule."""
    check = CHECKS.get(rule.expectation)
    if check is None or rule.column not in table.column_names:
        raise RuntimeError(f"rule {rule.name} could not be evaluated: {rule.expectation} of `{rule.column}`")
    column = columns.plain(table[rule.column])
    judged = columns.plain(table[rule.groups_by]) if check is _told and rule.groups_by else column
    wrong = pc.fill_null(check(judged, rule.arguments), False)
    rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    where = pa.array(rows)
    groups = pc.count_distinct(table[rule.groups_by].take(where)).as_py() if rule.groups_by else None
    return Finding(rule=rule, rows=rows, values=column.take(where), groups=groups)


def _missing(column: pa.Array, _: dict[str, Any]) -> pa.Array:
    return pc.is_null(column)


def _told(column: pa.Array, _: dict[str, Any]) -> pa.Array:
    """The frame says of each row what is wrong with it."""
    return pc.is_valid(column)


def _in_set(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    return pc.is_in(column, value_set=pa.array(arguments["value_set"], column.type))


def _not_in_set(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    return pc.and_(pc.is_valid(column), pc.invert(_in_set(column, arguments)))


def _outside(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    """Null for null."""
    least, most = arguments.get("min_value"), arguments.get("max_value")
    wrong = [pc.less(column, least)] if least is not None else []
    wrong += [pc.greater(column, most)] if most is not None else []
    return wrong[0] if len(wrong) == 1 else pc.or_(*wrong)


def _longer(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    return columns.longer(column, arguments["max_value"])


def _matches(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    given = pc.is_valid(column)  # a call of the matcher costs more than it saves on a null
    found = pc.match_substring_regex(column.drop_null(), arguments["regex"])
    return pc.replace_with_mask(pc.if_else(given, True, pa.scalar(None, pa.bool_())), given, found)


def _differs(column: pa.Array, arguments: dict[str, Any]) -> pa.Array:
    return pc.invert(_matches(column, arguments))


def _repeated(column: pa.Array, _: dict[str, Any]) -> pa.Array:
    return columns.repeated(column)


CHECKS: dict[str, Check] = {
    "ExpectColumnValuesToNotBeNull": _missing,
    "ExpectColumnValuesToBeNull": _told,
    "ExpectColumnValuesToBeInSet": _not_in_set,
    "ExpectColumnValuesToNotBeInSet": _in_set,
    "ExpectColumnValuesToBeBetween": _outside,
    "ExpectColumnValueLengthsToBeBetween": _longer,
    "ExpectColumnValuesToMatchRegex": _differs,
    "ExpectColumnValuesToNotMatchRegex": _matches,
    "ExpectColumnValuesToBeUnique": _repeated,
    "ExpectColumnValuesToDifferWhenFolded": _told,
    "ExpectTitleToAgreeWithAttribute": _told,
}
