"""The ontology and the lexicon: consistent data, and words found by tokens."""

from __future__ import annotations

import itertools

import pytest
from catalogs import product

from data.negatives import ontology
from data.negatives.captions import Product, read, slots
from data.negatives.lexicon import find, terms
from data.negatives.ontology import ANY, KINDS, compatible, is_any, overlap
from data.negatives.words import ACTIONS, MATERIALS, PARTS, PATTERNS, THINGS, spellings
from data.vocabulary import ARTICLE_TYPES, COLOURS, GENDERS, SEASONS, USAGES

COLUMNS = {"colour": COLOURS, "article": ARTICLE_TYPES, "gender": GENDERS, "usage": USAGES, "season": SEASONS}
BLOCKS = {"material": MATERIALS, "pattern": PATTERNS, "part": PARTS, "thing": THINGS, "action": ACTIONS}
VALUES = COLUMNS | {kind: tuple({value for _, value, _ in spellings(block)}) for kind, block in BLOCKS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_families_use_catalog_values_only(kind: str) -> None:
    assert set(ontology._COMPATIBLE[kind]) <= set(VALUES[kind])
    assert {value for term in terms() if term.kind == kind for value in term.values} <= set(VALUES[kind])
    assert set(VALUES[kind]) <= {value for term in terms() if term.kind == kind for value in term.values}


@pytest.mark.parametrize("kind", KINDS)
def test_compatibility_is_symmetric_and_reflexive(kind: str) -> None:
    for one, other in itertools.product(VALUES[kind], repeat=2):
        assert compatible(kind, (one,), (other,)) == compatible(kind, (other,), (one,))
        assert (one in overlap(kind, other)) == (other in overlap(kind, one))
        assert one not in overlap(kind, other) or compatible(kind, (one,), (other,))
    assert all(compatible(kind, (value,), (value,)) for value in VALUES[kind])
    assert all(compatible(kind, (value,), (other,)) for value in ANY.get(kind, ()) for other in VALUES[kind])


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("colour", "Navy Blue", "Blue"), ("colour", "Grey", "Charcoal"), ("colour", "Beige", "Off White"),
        ("colour", "Maroon", "Burgundy"), ("colour", "Silver", "Steel"), ("article", "Tops", "Tshirts"),
        ("article", "Casual Shoes", "Sports Shoes"), ("article", "Kurtas", "Tunics"), ("article", "Flats", "Heels"),
        ("gender", "Unisex", "Women"), ("gender", "Men", "Boys"), ("usage", "Casual", "Sports"),
        ("season", "Fall", "Winter"),
        ("pattern", "Printed", "Striped"), ("material", "Cotton", "Denim"), ("material", "Leather", "Suede"),
        ("part", "V-Neck", "Sleeveless"), ("thing", "dog", "bench"), ("action", "sit", "ride"),
    ],
)  # fmt: skip
def test_what_could_also_be_true(kind: str, one: str, other: str) -> None:
    assert compatible(kind, (one,), (other,))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("colour", "Black", "White"), ("colour", "Red", "Green"), ("article", "Shirts", "Tshirts"),
        ("article", "Formal Shoes", "Flip Flops"), ("gender", "Men", "Women"), ("usage", "Formal", "Sports"),
        ("season", "Summer", "Winter"), ("pattern", "Solid", "Printed"), ("pattern", "Striped", "Checked"),
        ("material", "Leather", "Canvas"), ("part", "Round Neck", "V-Neck"), ("thing", "dog", "cat"),
        ("action", "sit", "stand"),
    ],
)  # fmt: skip
def test_what_cannot(kind: str, one: str, other: str) -> None:
    assert not compatible(kind, (one,), (other,))
    assert not is_any(kind, (one, other))


def texts(caption: str) -> list[str]:
    return [caption[m.start : m.end] for m in find(caption)]


def test_words_are_found_by_tokens_and_the_longest_wins() -> None:
    assert texts("Hundred Women Navy Blue Casual Shoes") == ["Women", "Navy Blue", "Casual Shoes"]
    assert texts("Predator hundred bluetooth") == []
    assert texts("ADIDAS T-SHIRTS") == ["T-SHIRTS"]
    assert texts("Blue, Navy") == ["Blue", "Navy"]


def test_every_term_finds_itself() -> None:
    for term in terms():
        (mention,) = find(term.text)
        assert (mention.start, mention.end) == (0, len(term.text))
        assert mention.term.values == term.values or term.kind != mention.term.kind
    assert len({term.key for term in terms()}) == len(terms())


@pytest.mark.parametrize(
    "caption", ["Puma White/Black Shoe", "Dark Black Shirt", "Black Plated Chain", "Black-Toned Watch"]
)
def test_words_bound_to_others_are_not_replaceable(caption: str) -> None:
    assert all(m.attached for m in find(caption) if caption[m.start : m.end] == "Black")


def slot_texts(title: str, **values: object) -> dict[str, str]:
    row = product(title=title, **values)
    found = slots(read(title), Product.of(row), "title")
    return {kind: title[m.start : m.end] for kind, m in found.items()}


def test_slots_name_the_products_own_value_once() -> None:
    assert slot_texts("Puma Men White T-shirt") == {"colour": "White", "gender": "Men", "article": "T-shirt"}
    assert "colour" not in slot_texts("Puma Men Blue T-shirt")  # not the product's colour
    assert "colour" not in slot_texts("Jealous Women White Top White Tops", article_type="Tops", gender="Women")
    assert "gender" not in slot_texts("Puma Women White T-shirt")
    assert "article" not in slot_texts("Biba White T-shirt with Belt")


def test_a_colour_at_the_head_of_a_title_is_a_brand() -> None:
    assert slot_texts("Black Coffee Men Shirt", base_colour="Black", article_type="Shirts").get("colour") is None
    assert slot_texts("Red Tape Men Red Shirt", base_colour="Red", article_type="Shirts").get("colour") is None


def test_what_a_title_alone_states_has_a_slot_unless_another_word_leaves_it_open() -> None:
    title = "Puma Men Striped V-Neck Cotton White T-shirt"
    assert slot_texts(title) == {
        "pattern": "Striped", "part": "V-Neck", "material": "Cotton", "colour": "White", "article": "T-shirt",
        "gender": "Men",
    }  # fmt: skip
    assert "pattern" not in slot_texts("Puma Men Striped Printed White T-shirt")
    assert slot_texts("Puma V-Neck Sleeveless T-shirt")["part"] == "V-Neck"  # sleeves are another matter
    assert "material" not in slot_texts("Cotton County Men White T-shirt")  # a brand
    assert "material" not in slot_texts("U.S. Polo Denim Co. Men White T-shirt")
    assert "material" not in slot_texts(
        "Lakme Satin Lipstick", article_type="Lipstick", master_category="Personal Care"
    )


def test_a_season_in_the_title_must_be_the_products() -> None:
    assert slot_texts("Puma Winter Jacket", season="Fall")["season"] == "Winter"
    assert "season" not in slot_texts("Puma Winter Jacket", season="Summer")
    assert "season" not in slot_texts("Puma Winter Jacket")


def test_derived_captions_have_all_slots() -> None:
    row = Product.of(product(article_type="Casual Shoes", usage="Casual", base_colour="Navy Blue"))
    caption = row.caption("derived")
    assert caption == "navy blue casual shoes for men, casual wear"
    found = {kind: caption[m.start : m.end] for kind, m in slots(read(caption), row, "derived").items()}
    assert found == {"colour": "navy blue", "article": "casual shoes", "gender": "men", "usage": "casual"}
