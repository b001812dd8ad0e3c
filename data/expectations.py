"""The Great Expectations suite of a drop, built from the schema: one rule, one expectation, one severity.

`critical` quarantines the row, `warning` travels with the drop, `info` is worth knowing. What a rule looks at that is
not a column of the catalog (decoded sizes, repeated pictures, colours named in titles) is computed first, by `frame`;
every rule is then an expectation on columns of that frame, a stock one or one of data/expectations_custom.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import contradictions, reports, schema, suspicious
from data.mapping import FASHION, CatalogMapping
from data.stage import Severity

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

GREY_MODES = ["1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"]  # Pillow's single-channel modes
ROW = "position"  # of a row in the drop, from 0
ODD_TEXT = "odd_text"  # every text column but the id, one under the other; null where no pattern below is found
# What no catalog means to send: rule, severity, pattern, and what a text that it finds does.
TEXT_RULES: tuple[tuple[str, Severity, str, str], ...] = (
    ("text_control", "critical", reports.CONTROL, "has control characters (NUL, escape, ...)"),
    ("text_reordered", "critical", reports.REORDERING, "has marks that change the order in which it is read"),
    ("text_script", "critical", suspicious.SCRIPT, "reads like a script, markup or a template, not like a catalog"),
    ("text_prompt", "warning", suspicious.PROMPT, "reads like instructions to a language model"),
    ("text_invisible", "warning", reports.INVISIBLE, "has invisible characters, which break words apart"),
    ("text_replaced", "warning", suspicious.REPLACED, "has U+FFFD, the mark of a letter lost in conversion"),
    ("text_encoding", "warning", suspicious.MOJIBAKE, "was decoded wrongly (`Ã©` for `é`, `&amp;` for `&`)"),
    ("text_one_script", "warning", suspicious.MIXED_SCRIPTS, "mixes Latin with Cyrillic or Greek within a word"),
)


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
    max_text: int = 10_000
    blank_std: float = 8.0
    min_side: int = 32
    rare_rows: int = 10
    usual_sizes: tuple[tuple[int, int], ...] = ((60, 80), (224, 224))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`description` says in plain words what is wrong with an offending row; `groups_by` what such rows share.

    `column` of the frame is what the rule looks at. An expectation that takes several columns names them in its
    arguments as `column_list`; `column` then holds what is wrong with them.
    """

    name: str
    severity: Severity
    description: str
    column: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    groups_by: str = ""

    @property
    def looks_at(self) -> list[str]:
        """The frame's columns that the expectation is given."""
        return self.arguments.get("column_list", [self.column])

    @property
    def settings(self) -> dict[str, Any]:
        """The expectation's own arguments."""
        whole_table = "column_list" in self.arguments or not self.column
        return self.arguments if whole_table else {"column": self.column, **self.arguments}


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """The outcome of a rule: the offending rows' positions in the drop, ascending, and how many groups they form.

    `values` are theirs in the rule's column, row by row.
    """

    rule: Rule
    rows: np.ndarray
    values: pa.Array
    groups: int | None = None

    @property
    def count(self) -> int:
        return len(self.rows)

    def pairs(self) -> Iterator[tuple[int, Any]]:
        """(row, value) of every offending row; of joined text only the part that offends."""
        values = self.texts() if self.rule.column == ODD_TEXT else self.values
        return zip(self.rows.tolist(), values.to_pylist(), strict=True)

    def texts(self) -> pa.Array:
        """The values as short texts; of joined text only the part that offends."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.values.cast(pa.large_string())
        if self.rule.column == ODD_TEXT:
            regex = self.rule.arguments["regex"]
            values = pa.array([suspicious.found(regex, value) for value in values.to_pylist()], values.type)
        return pc.utf8_slice_codeunits(values, 0, reports.SHOWN)


def frame(rows: pa.Table, pictures: pa.Table) -> pa.Table:
    """The table that the rules look at: the catalog's columns (blank as null, `NA` as text) and what is derived.

    `rows` has text columns named as in the schema, a column it lacks counts as empty; `pictures` has the fields of
    `Picture`. Both are in the drop's order, which the frame keeps.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from data import columns as cols

    size = len(rows)
    text = {name: cols.text(rows, name) for name in schema.NAMES}
    found = {name: cols.or_null(values) for name, values in text.items()}
    found["title_key"] = cols.or_null(pc.utf8_lower(text["title"]))  # letter case aside; spacing is another rule's
    for name, about in contradictions.ABOUT.items():
        found[f"other_{name}"] = cols.by_unique([text[column] for column in about.columns], about.find)
    found["id_twin"] = cols.twins(found["id"], reports.id_key)
    texts = [values for name, values in text.items() if name != "id"]
    joined = pc.binary_join_element_wise(*texts, cols.scalar("\n"))
    odd = pc.match_substring_regex(joined, "|".join(f"(?:{regex})" for _, _, regex, _ in TEXT_RULES))
    found[ODD_TEXT] = pc.if_else(odd, joined, pa.scalar(None, joined.type))
    found["longest_text"] = pc.max_element_wise(*map(pc.utf8_length, texts))
    found["article_type_rows"] = cols.group_sizes(found["article_type"])
    for name in ("bytes", "problem", "mode", "grey_std", "key", "width", "height"):
        found[f"image_{name}"] = cols.plain(pictures[name])
    width, height = (pc.cast(found[f"image_{name}"], pa.large_string()) for name in ("width", "height"))
    found["image_size"] = pc.binary_join_element_wise(width, height, cols.scalar("x"))
    found["image_side"] = pc.min_element_wise(found["image_width"], found["image_height"])
    found["image_titles"] = cols.distinct_within(found["image_key"], found["title"])
    found[ROW] = pa.array(range(size), pa.int64())
    return pa.table(found)


def write_findings(path: Path, findings: Sequence[Finding], table: pa.Table, lines: Sequence[int]) -> None:
    """Every offending row of every rule as parquet: rule, severity, line of the drop's table, id, value as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"rule": pa.string(), "severity": pa.string(), "line": pa.int64(), "id": pa.string(), "value": pa.string()}
    columns = pa.schema(list(kinds.items()))
    line, ids = pa.array(lines, pa.int64()), table["id"].combine_chunks().cast(pa.string())
    with pq.ParquetWriter(path, columns, compression="zstd", use_dictionary=["rule", "severity"]) as writer:
        for finding in findings:
            rows = pa.array(finding.rows)
            same = [pa.repeat(word, len(rows)) for word in (finding.rule.name, finding.rule.severity)]
            parts = [*same, line.take(rows), ids.take(rows), finding.texts().cast(pa.string())]
            writer.write_table(pa.Table.from_arrays(parts, schema=columns))


def rules(thresholds: Thresholds, mapping: CatalogMapping = FASHION) -> list[Rule]:
    """Every rule of a catalog, in the order in which reports show them."""
    return [
        *_image_rules(thresholds, mapping), *_identity_rules(), *_text_rules(thresholds), *_column_rules(mapping),
        *_contradiction_rules(), *_title_rules(thresholds),
    ]  # fmt: skip


def _image_rules(thresholds: Thresholds, mapping: CatalogMapping) -> list[Rule]:
    sizes = [f"{width}x{height}" for width, height in thresholds.usual_sizes]
    null, between = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
    found = [
        Rule(name="image_present", severity="critical", description="The row has no image.",
             column="image_bytes", expectation="ExpectColumnValuesToNotBeNull"),
        Rule(name="image_decodes", severity="critical", description="The image cannot be decoded.",
             column="image_problem", expectation=null),
        Rule(name="image_in_colour", severity="warning", description="The image is single-channel grey-scale.",
             column="image_mode", expectation="ExpectColumnValuesToNotBeInSet", arguments={"value_set": GREY_MODES}),
        Rule(name="image_large_enough", severity="warning",
             description=f"A side of the image has fewer than {thresholds.min_side} pixels.",
             column="image_side", expectation=between, arguments={"min_value": thresholds.min_side}),
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
    # The usual sizes are those of the fashion catalog's shop; another shop's are not known.
    return [rule for rule in found if rule.name != "image_usual_size" or mapping.catalog == FASHION.catalog]


def _identity_rules() -> list[Rule]:
    return [
        Rule(name="id_unique", severity="critical", groups_by="id",
             description="The drop has the id more than once, and nothing says which row is right.",
             column="id", expectation="ExpectColumnValuesToBeUnique"),
        Rule(name="id_distinct", severity="critical", groups_by="id_twin",
             description="Another id of the drop differs only by letter case or by how Unicode spells it.",
             column="id", expectation="ExpectColumnValuesToDifferWhenFolded"),
        Rule(name="id_well_formed", severity="critical",
             description="The id has characters other than letters, digits, `.`, `_` and `-`, or more than 64 of them.",
             column="id", expectation="ExpectColumnValuesToMatchRegex",
             arguments={"regex": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
    ]  # fmt: skip


def _text_rules(thresholds: Thresholds) -> list[Rule]:
    """Over every text column at once: what no catalog means to send."""
    longest = thresholds.max_text
    return [
        Rule(name="text_length", severity="critical", column="longest_text",
             description=f"A text has more than {longest:,} characters.",
             expectation="ExpectColumnValuesToBeBetween", arguments={"max_value": longest}),
        *(Rule(name=name, severity=severity, column=ODD_TEXT, description=f"A text {words}.",
               expectation="ExpectColumnValuesToNotMatchRegex", arguments={"regex": regex})
          for name, severity, regex, words in TEXT_RULES),
    ]  # fmt: skip


def _column_rules(mapping: CatalogMapping) -> list[Rule]:
    """From the schema: is there a value, is it a real one, is it of the column's type or vocabulary."""
    found = []
    for column in (column for column in schema.COLUMNS if column.in_table):
        severity: Severity = "critical" if mapping.is_filled(column.name) else "warning"
        if column.name in mapping.required or column.name in mapping.constants:  # else the catalog has no such column
            found += _given(column, severity)
        known = mapping.vocabulary_of(column.name)
        if column.type == "year":
            found.append(_member(column.name, "is_year", "critical", "is not a year such as 2016", _years()))
        elif known:
            values = [*known, schema.NOT_AVAILABLE]
            found.append(_member(column.name, "known", "warning", "is not a value known so far", values))
    return found


def _given(column: schema.Column, severity: Severity) -> list[Rule]:
    about = f"`{column.name}` ({column.meaning})"
    return [
        Rule(name=f"{column.name}_filled", severity=severity, column=column.name, description=f"{about} is empty.",
             expectation="ExpectColumnValuesToNotBeNull"),
        Rule(name=f"{column.name}_not_na", severity=severity, column=column.name,
             description=f"{about} is the text `NA`.", expectation="ExpectColumnValuesToNotBeInSet",
             arguments={"value_set": [schema.NOT_AVAILABLE]}),
    ]  # fmt: skip


def _member(column: str, suffix: str, severity: Severity, words: str, values: list[str]) -> Rule:
    return Rule(
        name=f"{column}_{suffix}", severity=severity, description=f"`{column}` {words}.", column=column,
        expectation="ExpectColumnValuesToBeInSet", arguments={"value_set": values},
    )  # fmt: skip


def _years() -> list[str]:
    first, last = schema.YEARS
    years = [str(year) for year in range(first, last + 1)]
    return [*years, *(f"{year}.0" for year in years), schema.NOT_AVAILABLE]


def _contradiction_rules() -> list[Rule]:
    words = {
        "colour": "another colour than `base_colour`, and none of its family",
        "gender": "another wearer than `gender`",
        "article": "another kind of article than `article_type`, and none that it could also be",
        "season": "a season of the other half of the year than `season`",
    }
    return [
        Rule(name=f"title_agrees_with_{name}", severity="warning", description=f"The title names {words[name]}.",
             column=f"other_{name}", expectation="ExpectTitleToAgreeWithAttribute",
             arguments={"column_list": list(about.columns), "about": name})
        for name, about in contradictions.ABOUT.items()
    ]  # fmt: skip


def _title_rules(thresholds: Thresholds) -> list[Rule]:
    no_match, longest = "ExpectColumnValuesToNotMatchRegex", thresholds.max_title
    return [
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
