"""The row definition: names and aliases, captions, ids, and that the starter catalog fits it."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pytest

from data import schema
from data.drops import Drop
from data.expectations import Picture

ROW = {
    "id": "17639", "title": "Puma Women Darsey Black Scarf", "gender": "Women", "master_category": "Accessories",
    "sub_category": "Scarves", "article_type": "Scarves", "base_colour": "Black", "season": "Fall", "year": "2011",
    "usage": "Casual", "derived_caption": "black scarves for women, casual wear",
}  # fmt: skip


def test_columns_are_found_by_name_alias_and_spelling() -> None:
    found = schema.find_columns(["ID", "productDisplayName", "Base Colour", "article-type", "price"])
    assert found == {
        "id": "ID",
        "title": "productDisplayName",
        "base_colour": "Base Colour",
        "article_type": "article-type",
    }


def test_a_column_goes_before_its_alias() -> None:
    assert schema.find_columns(["productDisplayName", "title"])["title"] == "title"


@pytest.mark.parametrize(("text", "year"), [
    ("2011", 2011), ("2011.0", 2011), ("1990", 1990), ("2035", 2035), ("1989", None), ("2036", None), ("20111", None),
    ("", None), ("NA", None), (" 2011", None), ("2011.5", None), ("２０１１", None),
])  # fmt: skip
def test_years(text: str, year: int | None) -> None:
    assert schema.year(text) == year


@pytest.mark.parametrize(("text", "value"), [("", None), ("NA", None), (" \t", None), ("na", "na"), (" Red ", " Red ")])
def test_values(text: str, value: str | None) -> None:
    assert schema.value(text) == value


@pytest.mark.parametrize(("change", "caption"), [
    ({}, "black scarves for women, casual wear"),
    ({"usage": "NA"}, "black scarves for women"),
    ({"base_colour": ""}, "scarves for women, casual wear"),
    ({"gender": "Unisex", "base_colour": "NA", "usage": ""}, "scarves for men and women"),
    ({"gender": "NA", "usage": " "}, "black scarves"),
    ({"base_colour": "", "gender": "", "usage": "", "article_type": "NA"}, ""),
])  # fmt: skip
def test_captions(change: dict[str, str], caption: str) -> None:
    assert schema.derive_caption(ROW | change) == caption


def test_the_template_gives_every_caption_of_the_starter_catalog(
    starter: dict[str, tuple[Drop, list[Picture]]],
) -> None:
    for drop, _ in starter.values():
        columns = drop.table.columns
        rows = ({name: columns[name][i] for name in schema.NAMES} for i in range(len(drop)))
        assert [schema.derive_caption(row) for row in rows] == columns["derived_caption"]


def test_the_row_id_is_a_plain_hash_anyone_can_repeat() -> None:
    body = json.dumps(ROW | {"image_sha256": "ab"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert schema.row_id(ROW, "ab") == hashlib.sha256(body.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("change", "image", "row_id"), [
    ({}, "ab", "8e5fa0666a033261"), ({}, None, "a536ad480b48085d"),
    ({"title": "NA", "season": "", "usage": "Smart Casual é"}, "ab", "55f94aa0b825d3a9"),
])  # fmt: skip
def test_row_ids_of_the_fashion_catalog_stay_what_they_were_in_version_1(
    change: dict[str, str], image: str | None, row_id: str
) -> None:
    assert schema.row_id(ROW | change, image) == schema.row_id(ROW | change, image, schema.CATALOG) == row_id


def test_products_of_two_catalogs_are_two_products() -> None:
    assert len({schema.row_id(ROW, "ab", catalog) for catalog in ("fashion", "grocery", "toys")}) == 3


@pytest.mark.parametrize("name", schema.NAMES)
def test_the_row_id_depends_on_every_column(name: str) -> None:
    assert schema.row_id(ROW | {name: ROW[name] + "x"}, "ab") != schema.row_id(ROW, "ab")


def test_the_row_id_depends_on_the_image_and_on_nothing_else() -> None:
    assert schema.row_id(ROW, "ab") != schema.row_id(ROW, "ac") != schema.row_id(ROW, None)
    assert schema.row_id(ROW | {"shard": "x.parquet"}, "ab") == schema.row_id(ROW, "ab")


def test_stored_columns() -> None:
    """Later stages read these names and types; a change here is a change of `schema.VERSION`."""
    products = schema.products_schema()
    assert products.names == [
        "row_id", "drop_id", "catalog", "row", *schema.NAMES,
        "image", "image_sha256", "image_key", "width", "height", "mode",
    ]  # fmt: skip
    assert products.field("year").type == pa.int32()
    assert {field.name for field in products if field.nullable} == set(schema.NAMES) - {"id"}
    assert schema.withdrawn_schema().names == ["catalog", "id", "drop_id", "row"]
    assert schema.quarantine_schema().field("year").type == pa.string()
    assert schema.quarantine_schema().names[-2:] == ["reasons", "messages"]


def test_the_vocabularies_cover_the_starter_catalog(starter: dict[str, tuple[Drop, list[Picture]]]) -> None:
    for column in schema.COLUMNS:
        if column.vocabulary:
            used = {value for drop, _ in starter.values() for value in drop.table.columns[column.name]} - {"", "NA"}
            assert used <= set(column.vocabulary)
            assert len(set(column.vocabulary)) == len(column.vocabulary)
