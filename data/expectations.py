"""The Great Expectations suite of a drop, built from the schema: one rule, one expectation, one severity.

`critical` quarantines the row, `warning` travels with the drop, `info` is worth knowing. What a rule looks at that is
not a column of the catalog (decoded sizes, repeated pictures, colours named in titles) is computed first, by `frame`;
every rule is then a stock expectation on a column of that frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data import colours, schema
from data.stage import Severity

if TYPE_CHECKING:
    import pandas as pd

GREY_MODES = ["1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"]  # Pillow's single-channel modes
ROW = "position"  # of a row in the drop, from 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What examining a row's picture found. `problem` says why it cannot be used; then the facts are None."""

    bytes: int | None = None
    sha256: str | None = None
    key: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    grey_std: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The values that rules compare with: `land.rules` of params.yaml."""

    max_title: int = 300
    blank_std: float = 8.0
    rare_rows: int = 10
    usual_sizes: tuple[tuple[int, int], ...] = ((60, 80), (224, 224))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`description` says in plain words what is wrong with an offending row; `groups_by` what such rows share."""

    name: str
    severity: Severity
    description: str
    column: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    groups_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of a rule: the offending rows' positions in the drop, their values, and how many groups they form."""

    rule: Rule
    rows: list[int]
    values: list[Any]
    groups: int | None = None

    @property
    def count(self) -> int:
        return len(self.rows)


def frame(columns: dict[str, list[str]], pictures: Sequence[Picture]) -> pd.DataFrame:
    """The table that the rules look at: the catalog's columns (blank as null, `NA` as text) and what is derived."""
    import pandas as pd

    table = pd.DataFrame({name: pd.Series(columns[name], dtype=object) for name in schema.NAMES})
    title, colour, department = (columns[name] for name in ("title", "base_colour", "master_category"))
    table["title_key"] = [schema.caseless(text) or None for text in title]
    named = (colours.contradiction(*row) for row in zip(title, colour, department, strict=True))
    table["other_colour"] = pd.Series(list(named), dtype=object)
    table = table.replace(r"^\s*$", None, regex=True)
    table["article_type_rows"] = table.groupby("article_type")["article_type"].transform("size")
    for name in ("bytes", "problem", "mode", "grey_std", "key"):
        table[f"image_{name}"] = pd.Series([getattr(picture, name) for picture in pictures], dtype=object)
    table["image_size"] = [f"{p.width}x{p.height}" if p.width else None for p in pictures]
    table["image_titles"] = table.groupby("image_key")["title"].transform("nunique")
    table[ROW] = range(len(table))
    return table


def rules(thresholds: Thresholds) -> list[Rule]:
    """Every rule, in the order in which reports show them."""
    return [*_image_rules(thresholds), *_identity_rules(), *_column_rules(), *_title_rules(thresholds)]


def _image_rules(thresholds: Thresholds) -> list[Rule]:
    sizes = [f"{width}x{height}" for width, height in thresholds.usual_sizes]
    null, between = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
    return [
        Rule(name="image_present", severity="critical", description="The row has no image.",
             column="image_bytes", expectation="ExpectColumnValuesToNotBeNull"),
        Rule(name="image_decodes", severity="critical", description="The image cannot be decoded.",
             column="image_problem", expectation=null),
        Rule(name="image_in_colour", severity="warning", description="The image is single-channel grey-scale.",
             column="image_mode", expectation="ExpectColumnValuesToNotBeInSet", arguments={"value_set": GREY_MODES}),
        Rule(name="image_usual_size", severity="warning",
             description=f"The image has none of the catalog's usual sizes ({', '.join(sizes)}).",
             column="image_size", expectation="ExpectColumnValuesToBeInSet", arguments={"value_set": sizes}),
        Rule(name="image_not_blank", severity="warning",
             description=f"The image is nearly blank (its grey values vary by less than {thresholds.blank_std:g}).",
             column="image_grey_std", expectation=between, arguments={"min_value": thresholds.blank_std}),
        Rule(name="image_one_title", severity="warning", groups_by="image_key",
             description="Another product with a different title shows the same image, pixel for pixel.",
             column="image_titles", expectation=between, arguments={"max_value": 1}),
        Rule(name="image_unique", severity="info", groups_by="image_key",
             description="Another product shows the same image, pixel for pixel.",
             column="image_key", expectation="ExpectColumnValuesToBeUnique"),
    ]  # fmt: skip


def _identity_rules() -> list[Rule]:
    return [
        Rule(name="id_unique", severity="critical", groups_by="id",
             description="The drop has the id more than once, and nothing says which row is right.",
             column="id", expectation="ExpectColumnValuesToBeUnique"),
        Rule(name="id_well_formed", severity="critical",
             description="The id has characters other than letters, digits, `.`, `_` and `-`, or more than 64 of them.",
             column="id", expectation="ExpectColumnValuesToMatchRegex",
             arguments={"regex": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"}),
    ]  # fmt: skip


def _column_rules() -> list[Rule]:
    """From the schema: is there a value, is it a real one, is it of the column's type or vocabulary."""
    found = []
    for column in (column for column in schema.COLUMNS if column.in_table):
        severity: Severity = "critical" if column.filled else "warning"
        found.append(Rule(
            name=f"{column.name}_filled", severity=severity, column=column.name,
            description=f"`{column.name}` ({column.meaning}) is empty.", expectation="ExpectColumnValuesToNotBeNull",
        ))  # fmt: skip
        found.append(Rule(
            name=f"{column.name}_not_na", severity=severity, column=column.name,
            description=f"`{column.name}` ({column.meaning}) is the text `NA`.",
            expectation="ExpectColumnValuesToNotBeInSet", arguments={"value_set": [schema.NOT_AVAILABLE]},
        ))  # fmt: skip
        known = [*column.vocabulary, schema.NOT_AVAILABLE]
        if column.type == "year":
            found.append(_member(column.name, "is_year", "critical", "is not a year such as 2016", _years()))
        elif column.vocabulary:
            found.append(_member(column.name, "known", "warning", "is not a value known so far", known))
    return found


def _member(column: str, suffix: str, severity: Severity, words: str, values: list[str]) -> Rule:
    return Rule(
        name=f"{column}_{suffix}", severity=severity, description=f"`{column}` {words}.", column=column,
        expectation="ExpectColumnValuesToBeInSet", arguments={"value_set": values},
    )  # fmt: skip


def _years() -> list[str]:
    first, last = schema.YEARS
    years = [str(year) for year in range(first, last + 1)]
    return [*years, *(f"{year}.0" for year in years), schema.NOT_AVAILABLE]


def _title_rules(thresholds: Thresholds) -> list[Rule]:
    no_match, longest = "ExpectColumnValuesToNotMatchRegex", thresholds.max_title
    return [
        Rule(name="title_agrees_with_colour", severity="warning",
             description="The title names another colour than `base_colour`, and none of its family.",
             column="other_colour", expectation="ExpectColumnValuesToBeNull"),
        Rule(name="title_single_spaced", severity="warning", description="The title contains double spaces.",
             column="title", expectation=no_match, arguments={"regex": "  "}),
        Rule(name="title_trimmed", severity="warning", description="The title begins or ends with a space.",
             column="title", expectation=no_match, arguments={"regex": r"^\s|\s$"}),
        Rule(name="title_length", severity="warning",
             description=f"The title is longer than {longest} characters; text models cut it off.",
             column="title", expectation="ExpectColumnValueLengthsToBeBetween", arguments={"max_value": longest}),
        Rule(name="title_unique", severity="info", groups_by="title_key",
             description="Another product has the same title (letter case aside).",
             column="title_key", expectation="ExpectColumnValuesToBeUnique"),
        Rule(name="article_type_common", severity="info", groups_by="article_type",
             description=f"The drop has fewer than {thresholds.rare_rows} products of this article type.",
             column="article_type_rows", expectation="ExpectColumnValuesToBeBetween",
             arguments={"min_value": thresholds.rare_rows}),
    ]  # fmt: skip
