"""The one definition of a catalog row: its columns, what sources call them, their types and their vocabularies.

Readers, validation, the dataset and every parquet file take their columns from here. A change that alters what a
stored row means raises `VERSION`, which makes `land` write every drop again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data import caption
from data.vocabulary import ARTICLE_TYPES, COLOURS, GENDERS, MASTER_CATEGORIES, SEASONS, SUB_CATEGORIES, USAGES

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2
CATALOG = "fashion"  # the catalog of a drop without a mapping; a product is known by its catalog and its id
NOT_AVAILABLE = "NA"  # what catalogs write for "no value"; it is text until validation has counted it


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a catalog row.

    `in_table`: the drop's table must have the column. `filled`: a row without a value is quarantined, because neither
    its title nor its derived caption could say what it is. Elsewhere a missing value is a warning and lands as null.
    `vocabulary`: the values known so far. A drop's mapping (data/mapping.py) may say otherwise for its catalog.
    """

    name: str
    meaning: str
    aliases: tuple[str, ...] = ()
    type: Literal["text", "year"] = "text"
    in_table: bool = True
    filled: bool = False
    vocabulary: tuple[str, ...] = ()


COLUMNS = (
    Column(name="id", meaning="the shop's product number", aliases=("product_id", "sku"), filled=True),
    Column(name="title", meaning="the name the shop shows", aliases=("productDisplayName", "product_name")),
    Column(name="gender", meaning="who it is made for", filled=True, vocabulary=GENDERS),
    Column(name="master_category", meaning="department", filled=True, vocabulary=MASTER_CATEGORIES),
    Column(name="sub_category", meaning="family within the department", vocabulary=SUB_CATEGORIES),
    Column(name="article_type", meaning="what kind of thing it is", filled=True, vocabulary=ARTICLE_TYPES),
    Column(name="base_colour", meaning="main colour", aliases=("base_color", "colour", "color"), vocabulary=COLOURS),
    Column(name="season", meaning="season it was made for", vocabulary=SEASONS),
    Column(name="year", meaning="year it entered the catalog", type="year"),
    Column(name="usage", meaning="occasion it is worn on", vocabulary=USAGES),
    Column(name="derived_caption", meaning="caption put together from the attributes", in_table=False),
)
NAMES = tuple(column.name for column in COLUMNS)
BY_NAME = {column.name: column for column in COLUMNS}
YEARS = (1990, 2035)  # plausible catalog years

# Columns of a drop's table that say where the picture is, and whether the product is withdrawn; no part of the row.
IMAGE, SHARD, WITHDRAWN = "image", "shard", "withdrawn"

CAPTION = "{base_colour} {article_type} for {gender}, {usage} wear"  # the template of derived captions
_WEARERS = {"unisex": "men and women"}


def find_columns(header: Iterable[str]) -> dict[str, str]:
    """{column name: the header's own spelling} for every schema column found by name or alias.

    Case, spaces, `_` and `-` do not matter (`baseColour`, `Base colour`, `base_colour`).
    """
    spelled: dict[str, str] = {}
    for name in header:
        spelled.setdefault(_plain(name), name)
    found = {}
    for column in COLUMNS:
        for candidate in (column.name, *column.aliases):
            if _plain(candidate) in spelled:
                found[column.name] = spelled[_plain(candidate)]
                break
    return found


def value(text: str) -> str | None:
    """What a field says: its text untouched, or None where it is blank or `NA`."""
    return None if text in ("", NOT_AVAILABLE) or text.isspace() else text


def year(text: str) -> int | None:
    """The year that `text` states (`2016`, or the `2016.0` that spreadsheets make of it), or None."""
    return int(text[:4]) if re.fullmatch(r"[0-9]{4}(\.0)?", text) and YEARS[0] <= int(text[:4]) <= YEARS[1] else None


def derive_caption(row: Mapping[str, str], template: str = CAPTION) -> str:
    """The template's caption of a row in lower case, leaving out what is not available (data/caption.py).

    >>> derive_caption({"base_colour": "NA", "article_type": "Belts", "gender": "Unisex", "usage": "Casual"})
    'belts for men and women, casual wear'
    """

    def said(name: str) -> str | None:
        word = (value(row.get(name, "")) or "").lower()
        return _WEARERS.get(word, word) if name == "gender" else word

    return caption.render(template, said)


def row_id(row: Mapping[str, str], image_sha256: str | None, catalog: str = CATALOG) -> str:
    """16 hex digits of the SHA-256 over a row's text columns, as the drop gives them, and its image's hash.

    The same product in two drops has the same row id exactly if nothing about it changed. The catalog's name enters
    only if it is not the default one, so that ids are what they were before there were others.
    """
    body = {name: row[name] for name in NAMES} | {"image_sha256": image_sha256}
    if catalog != CATALOG:
        body["catalog"] = catalog
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def caseless(title: str) -> str:
    """A title as the rule `title_unique` compares it: letter case aside, spacing kept (other rules report that)."""
    return title.lower()


def products_schema() -> pa.Schema:
    """Arrow schema of `products.parquet`: accepted rows, `NA` and empty fields as null.

    Only the id is certain to be there: which other columns a catalog fills is its mapping's to say.
    """
    import pyarrow as pa

    def field(column: Column) -> pa.Field:
        return pa.field(column.name, pa.int32() if column.type == "year" else pa.string(), nullable=column.name != "id")

    return pa.schema([*_landed(), *map(field, COLUMNS), *_image(nullable=False)])


def quarantine_schema() -> pa.Schema:
    """Arrow schema of `quarantine.parquet`: refused rows, every column as the drop's own text, and why."""
    import pyarrow as pa

    columns = [pa.field(name, pa.string()) for name in NAMES]
    words = pa.list_(pa.string())
    why = [pa.field("reasons", words), pa.field("messages", words)]
    return pa.schema([*_landed(), *columns, *_image(nullable=True), *why])


def withdrawn_schema() -> pa.Schema:
    """Arrow schema of `withdrawn.parquet`: the products that a drop takes off the catalog."""
    import pyarrow as pa

    kinds = {"catalog": pa.string(), "id": pa.string(), "drop_id": pa.string(), "row": pa.int64()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


def _landed() -> list[pa.Field]:
    import pyarrow as pa

    kinds = {"row_id": pa.string(), "drop_id": pa.string(), "catalog": pa.string(), "row": pa.int64()}
    return [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]


def _image(nullable: bool) -> list[pa.Field]:
    import pyarrow as pa

    kinds = {
        "image": pa.binary(), "image_sha256": pa.string(), "image_key": pa.string(),
        "width": pa.int32(), "height": pa.int32(), "mode": pa.string(),
    }  # fmt: skip
    return [pa.field(name, kind, nullable=nullable) for name, kind in kinds.items()]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
