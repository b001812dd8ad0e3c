"""The rules: each finds its own defect and no other, and the counts on the starter catalog are the documented ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from small_drops import Built, build, jpeg

from data import expectations, schema
from data.colours import contradiction, named_colours
from data.drops import Drop, read_drop
from data.expectations import Finding, Picture, Rule, Thresholds
from data.gx import Suite
from data.images import ImageLimits
from data.land import examine_pictures

ROWS = 6
Starter = dict[str, tuple[Drop, list[Picture]]]


def findings_of(columns: dict[str, list[str]], pictures: list[Picture]) -> dict[str, Finding]:
    suite = Suite("test", expectations.rules(Thresholds()))
    return {finding.rule.name: finding for finding in suite.run(expectations.frame(columns, pictures))}


def change(row: int, **values: str) -> Callable[[Built], object]:
    return lambda built: built.rows[row].update(values)


def image(row: int, data: bytes) -> Callable[[Built], object]:
    return lambda built: built.images.update({built.rows[row]["image"]: data})


def same_image(built: Built) -> None:
    built.images[built.rows[1]["image"]] = built.images[built.rows[0]["image"]]


def same_image_and_title(built: Built) -> None:
    same_image(built)
    built.rows[1]["productDisplayName"] = built.rows[0]["productDisplayName"].upper()


def repeat(column: str) -> Callable[[Built], object]:
    return lambda built: built.rows[4].update({column: built.rows[0][column]})


DEFECTS: list[tuple[str, Callable[[Built], object], dict[str, list[int]]]] = [
    ("nothing", lambda b: None, {}),
    ("no image", lambda b: b.images.pop(b.rows[2]["image"]), {"image_present": [2]}),
    ("image is text", image(1, b"<html>404</html>"), {"image_decodes": [1]}),
    ("image cut off", image(1, jpeg(1)[:900]), {"image_decodes": [1]}),
    ("image empty", image(1, b""), {"image_decodes": [1]}),
    ("image too heavy", image(1, jpeg(1) + b"\0" * 1_000_000), {"image_decodes": [1]}),
    ("grey", image(3, jpeg(3, mode="L")), {"image_in_colour": [3]}),
    ("odd size", image(3, jpeg(3, (53, 80))), {"image_usual_size": [3]}),
    ("both sizes are usual", image(3, jpeg(3, (224, 224))), {}),
    ("same image", same_image, {"image_one_title": [0, 1], "image_unique": [0, 1]}),
    ("same product twice", same_image_and_title,
     {"image_one_title": [0, 1], "image_unique": [0, 1], "title_unique": [0, 1]}),
    ("id twice", repeat("id"), {"id_unique": [0, 4]}),
    ("id empty", change(4, id=""), {"id_filled": [4]}),
    ("id is a path", change(4, id="a/b"), {"id_well_formed": [4]}),
    ("id with newline", change(4, id="4\n"), {"id_well_formed": [4]}),
    ("gender empty", change(4, gender=""), {"gender_filled": [4]}),
    ("gender blank", change(4, gender="  "), {"gender_filled": [4]}),
    ("gender NA", change(4, gender="NA"), {"gender_not_na": [4]}),
    ("gender new", change(4, gender="Toddlers"), {"gender_known": [4]}),
    ("category empty", change(4, masterCategory=""), {"master_category_filled": [4]}),
    ("article empty", change(4, articleType=""), {"article_type_filled": [4]}),
    ("article new", change(4, articleType="Ponchos"), {"article_type_known": [4], "article_type_common": [4]}),
    ("title empty", change(4, productDisplayName=""), {"title_filled": [4]}),
    ("title NA", change(4, productDisplayName="NA"), {"title_not_na": [4]}),
    ("colour empty", change(4, baseColour=""), {"base_colour_filled": [4]}),
    ("colour NA", change(4, baseColour="NA"), {"base_colour_not_na": [4]}),
    ("usage NA", change(4, usage="NA"), {"usage_not_na": [4]}),
    ("season empty", change(4, season=""), {"season_filled": [4]}),
    ("year empty", change(4, year=""), {"year_filled": [4]}),
    ("year NA", change(4, year="NA"), {"year_not_na": [4]}),
    ("year is text", change(4, year="20x1"), {"year_is_year": [4]}),
    ("year far off", change(4, year="1011"), {"year_is_year": [4]}),
    ("year as float", change(4, year="2011.0"), {}),
    ("other colour", change(4, productDisplayName="Puma Red T-shirt"), {"title_agrees_with_colour": [4]}),
    ("double space", change(4, productDisplayName="Puma  Shirt"), {"title_single_spaced": [4]}),
    ("leading space", change(4, productDisplayName=" Puma Shirt"), {"title_trimmed": [4]}),
    ("trailing space", change(4, productDisplayName="Puma Shirt "), {"title_trimmed": [4]}),
    ("longest title", change(4, productDisplayName="x" * 300), {}),
    ("longer title", change(4, productDisplayName="x" * 301), {"title_length": [4]}),
    ("same title", repeat("productDisplayName"), {"title_unique": [0, 4]}),
]  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[int]]]:
    """{defect: {rule: positions}}: a drop per defect, read for itself, then all validated as one table."""
    columns: dict[str, list[str]] = {name: [] for name in schema.NAMES}
    pictures: list[Picture] = []
    for number, (_, defect, _) in enumerate(DEFECTS):
        built = build(ROWS, first=100 * (number + 1))
        defect(built)
        drop = read_drop(built.write(tmp_path_factory.mktemp("defect") / "drop"))
        for name in schema.NAMES:
            columns[name] += drop.table.columns[name]
        pictures += examine_pictures(drop, ImageLimits(max_bytes=1_000_000))
    found: dict[str, dict[str, list[int]]] = {name: {} for name, _, _ in DEFECTS}
    for rule, finding in findings_of(columns, pictures).items():
        for row in finding.rows:
            found[DEFECTS[row // ROWS][0]].setdefault(rule, []).append(row % ROWS)
    return found


@pytest.mark.parametrize(("defect", "rules"), [(d[0], d[2]) for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_each_defect_is_found_by_its_rule_and_no_other(
    broken: dict[str, dict[str, list[int]]], defect: str, rules: dict[str, list[int]]
) -> None:
    assert broken[defect] == rules


def test_a_blank_picture_is_found_by_its_grey_values() -> None:
    columns = {name: ["1", "2", "3"] if name == "id" else ["x", "y", "z"] for name in schema.NAMES}
    pictures = [Picture(bytes=1, grey_std=deviation) for deviation in (7.999, 8.0, 60.0)]
    assert findings_of(columns, pictures)["image_not_blank"].rows == [0]


# (rule, severity, drop-1, drop-2, both): the numbers of the catalog's own description, where it gives them.
STARTER_COUNTS = [
    ("image_present", "critical", 1, 4, 5),
    ("title_not_na", "warning", 2, 5, 7),
    ("base_colour_not_na", "warning", 4, 8, 12),
    ("usage_not_na", "warning", 11, 81, 92),
    ("season_filled", "warning", 20, 1, 21),
    ("year_filled", "warning", 0, 1, 1),
    ("usage_filled", "warning", 1, 0, 1),
    ("image_in_colour", "warning", 42, 74, 116),
    ("image_usual_size", "warning", 12, 8, 20),
    ("image_not_blank", "warning", 9, 52, 61),
    ("title_single_spaced", "warning", 148, 30, 178),
    ("title_trimmed", "warning", 4, 0, 4),
    ("title_agrees_with_colour", "warning", 115, 67, 182),
]
# Rules about rows that share something: groups may span the drops, so only the union has the described numbers.
SHARED = [
    ("image_unique", "info", 179, 87),
    ("title_unique", "info", 3939, 1397),
    ("image_one_title", "warning", 64, 31),
]


@pytest.fixture(scope="module")
def found(starter: Starter) -> dict[str, dict[str, Finding]]:
    (one, one_pictures), (two, two_pictures) = starter.values()
    union = {name: one.table.columns[name] + two.table.columns[name] for name in schema.NAMES}
    return {
        "drop-1": findings_of(one.table.columns, one_pictures),
        "drop-2": findings_of(two.table.columns, two_pictures),
        "both": findings_of(union, one_pictures + two_pictures),
    }


@pytest.mark.parametrize(("rule", "severity", "one", "two", "both"), STARTER_COUNTS)
def test_counts_on_the_starter_catalog(
    found: dict[str, dict[str, Finding]], rule: str, severity: str, one: int, two: int, both: int
) -> None:
    assert [found[name][rule].count for name in found] == [one, two, both]
    assert one + two == both
    assert found["both"][rule].rule.severity == severity


@pytest.mark.parametrize(("rule", "severity", "rows", "groups"), SHARED)
def test_shared_pictures_and_titles_of_the_starter_catalog(
    found: dict[str, dict[str, Finding]], rule: str, severity: str, rows: int, groups: int
) -> None:
    finding = found["both"][rule]
    assert (finding.count, finding.groups, finding.rule.severity) == (rows, groups, severity)


def test_rare_article_types_of_the_starter_catalog(found: dict[str, dict[str, Finding]]) -> None:
    assert found["both"]["article_type_common"].groups == 46


def test_no_other_rule_finds_anything_in_the_starter_catalog(found: dict[str, dict[str, Finding]]) -> None:
    expected = {row[0] for row in STARTER_COUNTS} | {row[0] for row in SHARED} | {"article_type_common"}
    assert {name for name, finding in found["both"].items() if finding.count} == expected


def test_the_rows_without_image_are_the_known_five(starter: Starter, found: dict[str, dict[str, Finding]]) -> None:
    ids = [starter[name][0].table.columns["id"][row] for name in starter for row in found[name]["image_present"].rows]
    assert ids == ["12347", "39401", "39403", "39410", "39425"]


@pytest.mark.parametrize(("title", "names"), [
    ("Puma Men's Graphic White Navy T-shirt", ["white", "navy"]),
    ("Lee Navy Blue Jeans", ["navy blue"]),
    ("Tanned Scored Redtape Greyhound Shoes", []),
    ("Nike RED/black-White", ["red", "black", "white"]),
    ("Titan Women White Dial Watch", []),
    ("Casio Silver-Toned Dial Black Watch", ["black"]),
])  # fmt: skip
def test_colours_are_named_by_whole_words(title: str, names: list[str]) -> None:
    assert named_colours(title) == names


@pytest.mark.parametrize(("title", "colour", "department", "contradicts"), [
    ("Lee Men Checks Red Shirt", "Blue", "Apparel", "red"),
    ("Basics Men Red & Blue Polo", "White", "Apparel", "red, blue"),
    ("Basics Men Red & Blue Polo", "Blue", "Apparel", None),  # one of them fits
    ("Lee Navy Shirt", "Blue", "Apparel", None),  # the same family
    ("Lee Olive Shirt", "Green", "Apparel", None),
    ("Red Tape Brown Shoes", "Brown", "Footwear", None),
    ("Red Rose Nightdress", "Red", "Apparel", None),
    ("Enamor Rose Bra", "White", "Apparel", None),  # "rose" alone is no plain colour
    ("Black Marlin Perfume", "Blue", "Personal Care", None),
    ("Red Shirt", "NA", "Apparel", None),
    ("Red Shirt", "Multi", "Apparel", None),
    ("Red Shirt", "Zebra", "Apparel", None),  # an unknown colour is another rule's
    ("Plain Shirt", "Blue", "Apparel", None),
])  # fmt: skip
def test_contradictions(title: str, colour: str, department: str, contradicts: str | None) -> None:
    assert contradiction(title, colour, department) == contradicts


def test_every_known_colour_has_a_family() -> None:
    for colour in schema.BY_NAME["base_colour"].vocabulary:
        assert colour == "Multi" or named_colours(colour) == [colour.lower()]


def test_rules_have_names_of_their_own_and_words() -> None:
    rules = expectations.rules(Thresholds())
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.description.endswith(".") and rule.severity in ("critical", "warning", "info") for rule in rules)


def test_great_expectations_holds_the_severities() -> None:
    suite = Suite("test", expectations.rules(Thresholds()))
    held = {e.meta["rule"]: e.severity.value for e in suite.definition.suite.expectations}
    assert held == {name: rule.severity for name, rule in suite.rules.items()}


def test_a_mistaken_rule_is_an_error_not_a_pass() -> None:
    rule = Rule(name="odd", severity="info", description="Odd.", column="nowhere",
                expectation="ExpectColumnValuesToNotBeNull")  # fmt: skip
    columns = {name: ["x"] for name in schema.NAMES}
    with pytest.raises(RuntimeError, match="rule odd could not be evaluated"):
        Suite("test", [rule]).run(expectations.frame(columns, [Picture()]))


def test_data_docs_need_no_network_run_no_script_and_are_reproducible(tmp_path: Path) -> None:
    columns = {name: ["x", "y"] for name in schema.NAMES}
    columns["title"] = ["<script>alert(1)</script>  <img src=x onerror=alert(2)>", "$5 ${off} {{ 7*7 }} %s  &amp;"]
    for name in ("one", "two"):
        suite = Suite("abcdef", expectations.rules(Thresholds()))
        suite.run(expectations.frame(columns, [Picture(), Picture()]))
        suite.write_docs(tmp_path / name)
    pages = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "one").iterdir()}
    assert pages == {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "two").iterdir()}
    assert set(pages) == {"index.html", "suite.html"}
    for page in pages.values():
        assert not re.search(r"<(script|img|link)\b|https?://|\bsrc=['\"]", page)
        assert set(re.findall(r'href="([^"#]+)"', page)) <= set(pages)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages["index.html"]
    assert "$5 ${off} {{ 7*7 }} %s  &amp;amp;" in pages["index.html"]
    assert "title_single_spaced (warning)" in pages["index.html"]
