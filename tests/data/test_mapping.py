"""Mapping files: what they say of a catalog, and that a mistake in one is named with its cure."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_drops import ROOT, STARTER

from data import schema
from data.mapping import FASHION, FILE, MAX_BYTES, CatalogMapping, mapping_of, read_mapping
from data.params import UserError

MAPPINGS = sorted((ROOT / "data" / "mappings").glob("*.yaml"))
GROCERY = """
catalog: grocery
columns: {title: class_name, article_type: coarse_class, image: photo}
constants: {usage: Food}
values: {article_type: {"Red-Beet": Beet, "True": Yes, "0": ""}, season: {"*": ""}}
spaces: {title: "-_"}
vocabulary: {article_type: any, gender: [Kids]}
filled: [title, article_type]
caption: "{article_type} from {usage}, {season} harvest"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / FILE
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_mapping(written(folder, text))
    assert str(folder / FILE) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def grocery(tmp_path: Path) -> CatalogMapping:
    return read_mapping(written(tmp_path, GROCERY))


def test_without_a_mapping_a_catalog_is_what_the_schema_says(tmp_path: Path) -> None:
    found = mapping_of(tmp_path)
    assert found == FASHION == CatalogMapping()
    assert found.catalog == schema.CATALOG
    assert found.required == tuple(column.name for column in schema.COLUMNS if column.in_table)
    for column in schema.COLUMNS:
        assert found.is_filled(column.name) == column.filled
        assert (found.vocabulary_of(column.name) or ()) == column.vocabulary
        assert found.converter(column.name) is None
    with (STARTER / "drop-1" / "catalog.csv").open(encoding="utf-8", newline="") as stream:
        header = next(csv.reader(stream))
    assert found.find_columns(header) == schema.find_columns(header) | {"image": "image", "shard": "shard"}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "{}"):
        assert read_mapping(written(tmp_path, text)) == FASHION


def test_the_file_in_the_drop_counts_unless_another_is_given(tmp_path: Path) -> None:
    written(tmp_path, "catalog: within")
    other = tmp_path / "other.yaml"
    other.write_text("catalog: given", encoding="utf-8")
    assert mapping_of(tmp_path).catalog == "within"
    assert mapping_of(tmp_path, other).catalog == "given"
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read"):
        mapping_of(tmp_path, tmp_path / "absent.yaml")


def test_columns_are_found_by_mapping_then_by_name(grocery: CatalogMapping) -> None:
    header = ["ID", "title", "class_name", "coarse_class", "photo", "shard", "usage", "Base Colour", "withdrawn", "x"]
    assert grocery.find_columns(header) == {
        "id": "ID", "title": "class_name", "article_type": "coarse_class", "base_colour": "Base Colour",
        "image": "photo", "shard": "shard", "withdrawn": "withdrawn",
    }  # fmt: skip
    assert grocery.required == ("id", "title", "article_type")


def test_a_mapped_column_that_is_not_there_is_not_replaced_by_another(grocery: CatalogMapping) -> None:
    assert "title" not in grocery.find_columns(["id", "title"])


def test_a_column_without_a_mapped_name_is_needed_if_it_must_be_filled(tmp_path: Path) -> None:
    found = read_mapping(written(tmp_path, "columns: {title: name}\nconstants: {gender: Men}"))
    assert found.required == ("id", "title", "master_category", "article_type")


@pytest.mark.parametrize(("column", "text", "meaning"), [
    ("title", "Red_Bell-Pepper", "Red Bell Pepper"), ("article_type", "Red-Beet", "Beet"),
    ("article_type", "Oat-Milk", "Oat-Milk"), ("article_type", "True", "Yes"), ("article_type", "0", ""),
    ("season", "Fall", ""), ("season", "", ""),
])  # fmt: skip
def test_values_are_translated(grocery: CatalogMapping, column: str, text: str, meaning: str) -> None:
    convert = grocery.converter(column)
    assert convert is not None
    assert convert(text) == meaning


def test_rules_follow_the_mapping(grocery: CatalogMapping) -> None:
    assert [name for name in schema.NAMES if grocery.is_filled(name)] == ["id", "title", "article_type"]
    assert grocery.vocabulary_of("article_type") is None
    assert grocery.vocabulary_of("gender") == ("Kids",)
    assert grocery.vocabulary_of("season") == schema.BY_NAME["season"].vocabulary


def test_captions_follow_the_template(grocery: CatalogMapping) -> None:
    assert grocery.derive_caption({"article_type": "Oat Milk", "usage": "Food"}) == "oat milk from food"
    assert grocery.derive_caption({"article_type": "NA", "season": "Fall"}) == "fall harvest"
    assert grocery.derive_caption({}) == ""


@pytest.mark.parametrize(("text", "words"), [
    ("catalogue: x", ["catalogue", "Did you mean `catalog`?"]),
    ("catalog: Grocery Shop", ["catalog", "Grocery Shop", "a-z"]),
    ("catalog: ''", ["catalog"]),
    ("catalog: ../up", ["catalog"]),
    ("columns: {colour: c}", ["columns.colour", "base_colour"]),
    ("columns: [a, b]", ["columns"]),
    ("columns: {title: [a]}", ["columns.title", "expected str"]),
    ("columns: {title: a, title: b}", ["columns", "`title` is there twice"]),
    ("constants: {image: x}", ["constants.image"]),
    ("constants: {id: x}", ["constants.id"]),
    ("columns: {title: a}\nconstants: {title: b}", ["title", "both under columns and under constants"]),
    ("values: {title: x}", ["values.title"]),
    ("vocabulary: {gender: some}", ["vocabulary.gender", "any"]),
    ("vocabulary: {gender: []}", ["vocabulary.gender"]),
    ("vocabulary: {gender: [[a]]}", ["vocabulary.gender"]),
    ("filled: [name]", ["filled.name"]),
    ("filled: title", ["filled", "tuple"]),
    ("caption: words only", ["caption", "braces"]),
    ("caption: '{colour}'", ["caption.colour"]),
    ("caption: '{id} {title}'", ["caption.id"]),
    ("caption: '{title'", ["caption"]),
    ("- a\n- b", ["mapping of settings"]),
    ("just words", ["mapping of settings"]),
    ("a: b: c", ["not valid YAML"]),
    ("columns: {title: &name x, id: *name}", ["no anchors"]),
    ("? [a]\n: b", ["not valid YAML"]),
    ("!!python/object/apply:os.system [ls]", ["mapping of settings"]),
    ("catalog: \x07", ["not valid YAML"]),
    ("[" * 40_000, ["not valid YAML"]),
    ("#" * (MAX_BYTES + 1), ["at most"]),
])  # fmt: skip
def test_a_mistake_is_named_with_its_cure(tmp_path: Path, text: str, words: list[str]) -> None:
    said = refusal(tmp_path, text)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_a_file_of_aliases_that_would_expand_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "no anchors" in refusal(tmp_path, "\n".join(lines))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"catalog: \xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        mapping_of(tmp_path)


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_a_mapping_or_one_refusal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / FILE
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        said = str(read_mapping(path))
    except UserError as error:
        said = str(error).removeprefix(str(path))
    assert said.startswith((":", ".", "CatalogMapping("))


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_the_mappings_that_come_along(path: Path) -> None:
    found = read_mapping(path)
    assert found.catalog == path.stem
    assert set(found.filled) <= {*found.required, *found.constants}


def test_keys_with_hidden_characters_are_spelled_out_in_the_message(tmp_path: Path) -> None:
    for key in ("\\n", "\\u202e", "x" * 900):
        (tmp_path / "mapping.yaml").write_text(f'{{"columns": {{"{key}": "any"}}}}', encoding="utf-8")
        with pytest.raises(UserError, match=r"mapping\.yaml: columns") as refused:
            read_mapping(tmp_path / "mapping.yaml")
        said = str(refused.value)
        assert "\n" not in said
        assert "\u202e" not in said
        assert len(said) < 2500
