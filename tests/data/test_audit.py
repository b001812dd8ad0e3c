"""What each witness sees, what labels do to the estimate, and that it is right where the truth is known."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import product, starter_rows
from PIL import Image, ImageDraw

from data.dataset import IMAGE_SCHEMA
from data.negatives.audit import SILENT_LABELS, AuditConfig, Verdict, estimate, judge, key_of, sample, table
from data.negatives.intervals import wilson
from data.negatives.meanings import claim, implications, same_parts, stems
from data.negatives.witnesses import Witnesses

Row = dict[str, Any]


def negative(caption: str, text: str, *, row_id: str = "r0", edit: str = "colour", kind: str = "title") -> Row:
    return {"row_id": row_id, "caption_kind": kind, "caption": caption, "edit_type": "attribute", "edit": edit,
            "negative": text}  # fmt: skip


def heard(rows: list[Row], item: Row, images: Path | None = None) -> set[str]:
    return set(Witnesses(rows, images).ask([item])[0])


def shirt(colour: str, *, quality: int = 92, cut: int = 0) -> bytes:
    """A photo of a shirt on white paper; `cut` moves its sleeves."""
    image = Image.new("RGB", (60, 80), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((18, 20, 42, 66), fill=colour)
    pen.polygon([(18, 20), (6 + cut, 40), (12 + cut, 44), (18, 32)], fill=colour)
    pen.polygon([(42, 20), (54 - cut, 40), (48 - cut, 44), (42, 32)], fill=colour)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write_images(path: Path, photos: Mapping[str, bytes]) -> Path:
    rows = [{"image_key": key, "jpeg": data, "width": 60, "height": 80} for key, data in photos.items()]
    pq.write_table(pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), path)
    return path


def test_stems_join_spellings_and_a_claim_is_what_changed() -> None:
    assert stems("The Men's T-Shirts") == stems("man tshirt") == ("man", "tshirt")
    found = claim("Puma Men Navy Blue Tee", "Puma Men Red Tee")
    assert found == ((("red",),), (("navy", "blue"),), False)
    assert claim("red shirt and blue tie", "blue shirt and red tie").moved is True


def test_implied_words_go_up_and_never_down() -> None:
    assert {("blue",), ("tee",), ("topwear",)} <= implications(stems("navy blue t-shirt"))
    assert ("navy",) not in implications(stems("blue shirt"))


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("Puma Men White Tee", "Puma Men White T-shirt"),  # a synonym
        ("Puma Navy Blue Tee", "Puma Blue Tee"),  # a word left out
        ("Puma White Sports Shoes", "Puma White Footwear"),  # a more general word
        ("Red shirt and blue tie", "Blue tie and red shirt"),  # parts in another order
        ("Puma White T-shirt", "Puma White Tshirt"),  # another spelling
        ("Puma Men White Tee", "Puma Men White Top"),  # the more general word of the attribute
    ],
)
def test_the_ontology_hears_what_says_the_same_or_less(caption: str, text: str) -> None:
    rows = [product(title=caption, derived_caption="tshirts")]
    assert "ontology" in heard(rows, negative(caption, text))


def test_a_real_negative_is_met_with_silence() -> None:
    rows = [product(title="Puma Men White Tee"), product(row_id="r1", title="Puma Men Red Tee", image_key="k1")]
    for text in ("Puma Men Red Tee", "Puma Women White Tee", "Puma Men White Saree"):
        assert heard(rows, negative("Puma Men White Tee", text)) == set(), text


def test_beside_an_unspecific_value_nothing_is_certainly_false() -> None:
    rows = [product(title="Puma Tee", base_colour="Multi", gender="Unisex")]
    rows += [product(row_id="r1", base_colour="Red", image_key="k1"),
             product(row_id="r2", gender="Women", image_key="k2")]  # fmt: skip
    assert heard(rows, negative("white tshirts for men", "red tshirts for men")) == {"ontology"}
    assert "ontology" in heard(rows, negative("white tshirts for men", "white tshirts for women", edit="gender"))
    assert heard(rows, negative("white tshirts for men", "white sarees for men", edit="article")) == set()


def test_attributes_of_the_product_and_of_its_title_speak() -> None:
    rows = [product(title="Puma Tee", base_colour="White"),
            product(row_id="r1", title="Puma  TEE", base_colour="Red", image_key="k1")]  # fmt: skip
    assert heard(rows, negative("black tshirts for men", "white tshirts for men")) == {"ontology", "attributes"}
    assert heard(rows, negative("white tshirts for men", "red tshirts for men")) == {"attributes"}
    assert heard(rows, negative("white tshirts for men", "pink tshirts for men")) == set()


def test_another_caption_of_the_product_is_true_of_it() -> None:
    rows = [product(title="Puma Men Tee", derived_caption="white tshirts for men, casual wear")]
    assert "attributes" in heard(rows, negative("Puma Men Tee", "white tshirts for men, casual wear"))


def test_duplicates_speak_by_key_and_by_perception(tmp_path: Path) -> None:
    item = negative("white tshirts for men, casual wear", "red tshirts for men, casual wear")
    same = [product(title="One"), product(row_id="r1", title="Two", base_colour="Red")]
    assert heard(same, item) == {"duplicates"}
    other = [product(title="One"), product(row_id="r1", title="Two", base_colour="Red", image_key="k1")]
    assert heard(other, item) == set()
    again = write_images(tmp_path / "again.parquet", {"k0": shirt("#a02020"), "k1": shirt("#a02020", quality=60)})
    assert heard(other, item, again) == {"duplicates"}


def test_a_nearest_caption_speaks_if_its_photo_looks_alike(tmp_path: Path) -> None:
    rows = [product(title="Acme Men Club Maroon Shirt", base_colour="Maroon", article_type="Shirts"),
            product(row_id="r1", title="Acme Men Club Purple Shirt", base_colour="Purple", article_type="Shirts",
                    image_key="k1")]  # fmt: skip
    item = negative("Acme Men Club Maroon Shirt", "Acme Men Club Purple Shirt")
    photos = {"k0": shirt("#702040"), "k1": shirt("#702040", cut=1)}
    assert heard(rows, item, write_images(tmp_path / "alike.parquet", photos)) == {"nearest_captions"}
    photos["k1"] = shirt("#6040c0")
    assert heard(rows, item, write_images(tmp_path / "unlike.parquet", photos)) == set()
    assert heard(rows, item) == set()


def test_null_attributes_and_foreign_values_are_no_trouble() -> None:
    empty = dict.fromkeys(("gender", "master_category", "sub_category", "article_type", "base_colour", "usage"))
    rows = [product(title="Organic Bananas", derived_caption="", **empty),
            product(row_id="r1", title=None, derived_caption="fruit", article_type="Fruit & Veg")]  # fmt: skip
    assert heard(rows, negative("Organic Bananas", "Organic Apples", edit="thing")) == set()
    assert heard(rows, negative("fruit", "veg", row_id="r1", kind="derived")) == {"ontology", "attributes"}


def test_parts_with_names_of_their_own_do_not_commute() -> None:
    assert not same_parts("a man and a woman near a bench", "a woman and a man near a bench")
    assert same_parts("Shirt, Tie & Belt", "Belt, Shirt & Tie")


def test_a_sample_is_the_same_whatever_the_order_and_equal_per_edit() -> None:
    rows = [negative("a", f"b{n}", edit="colour" if n % 10 else "swap") for n in range(1000)]
    shuffled = rows[:]
    random.Random(3).shuffle(shuffled)
    drawn = sample(rows, 80, 31)
    assert drawn == sample(shuffled, 80, 31) != sample(rows, 80, 32)
    assert [row["edit"] for row in drawn] == ["colour"] * 80 + ["swap"] * 80


def verdicts(generator: np.random.Generator, count: int, share: float, *, recall: float, false_alarm: float,
             edit: str = "colour") -> tuple[list[Verdict], list[bool]]:  # fmt: skip
    """Judged negatives of which a known share is true, by witnesses who miss some and accuse others."""
    truth = generator.random(count) < share
    spoken = np.where(truth, generator.random(count) < recall, generator.random(count) < false_alarm)
    row = negative("a", "b", edit=edit)
    return [Verdict(row, {"ontology": "x"} if speaks else {}) for speaks in spoken], truth.tolist()


def labelled(found: list[Verdict], truth: list[bool], places: list[int]) -> list[Verdict]:
    said = set(places)
    return [Verdict(v.row, v.witnesses, truth[n] if n in said else None) for n, v in enumerate(found)]


def test_without_labels_the_estimate_is_what_the_witnesses_see() -> None:
    found = [Verdict(negative("a", str(n)), {"ontology": "x"} if n < 5 else {}) for n in range(500)]
    whole = estimate(found, {"colour": 9000}).whole
    assert whole.error == pytest.approx(wilson(5, 500))
    assert (whole.judged, whole.true, whole.negatives, whole.by_witness["ontology"]) == (500, 5, 9000, 5)


def test_a_label_overrules_the_witnesses_at_once() -> None:
    found = [Verdict(negative("a", "b"), {"ontology": "x"}, False), Verdict(negative("a", "c"), {}, True)]
    assert [verdict.true for verdict in found] == [False, True]
    assert found[1].row["negative"] == "c"


def test_edits_count_by_their_numbers_in_the_whole_set() -> None:
    found = [Verdict(negative("a", f"x{n}", edit=e), {"ontology": "x"} if e == "swap" else {})
             for e in ("colour", "swap") for n in range(100)]  # fmt: skip
    made = estimate(found, {"colour": 9900, "swap": 100})
    assert made.whole.error.share == pytest.approx(0.01)
    assert [part.error.share for part in made.edits] == [0.0, 1.0]


def test_an_edit_that_nobody_judged_may_be_true_altogether() -> None:
    found = [Verdict(negative("a", str(n)), {}) for n in range(1000)]
    assert estimate(found, {"colour": 500, "usage": 500}).whole.error.high > 0.5
    assert estimate([], {}).whole.negatives == 0


def test_labels_correct_witnesses_who_miss_half_and_accuse_the_innocent() -> None:
    """The interval with 600 labels has the true share 95 times of 100; the one without hardly ever."""
    generator = np.random.default_rng(7)
    share, plain, corrected, rounds = 0.06, 0, 0, 120
    for _ in range(rounds):
        found, truth = verdicts(generator, 2000, share, recall=0.4, false_alarm=0.005)
        spoken = [n for n, verdict in enumerate(found) if verdict.witnesses]
        silent = generator.permutation([n for n, verdict in enumerate(found) if not verdict.witnesses]).tolist()
        bare = estimate(found, {"colour": 50_000}).whole.error
        better = estimate(labelled(found, truth, spoken + silent[:600]), {"colour": 50_000}).whole.error
        plain += bare.low <= share <= bare.high
        corrected += better.low <= share <= better.high
    assert plain / rounds < 0.1
    assert corrected / rounds >= 0.93


def test_few_labels_change_their_own_rows_only() -> None:
    generator = np.random.default_rng(8)
    found, _ = verdicts(generator, 1000, 0.0, recall=1.0, false_alarm=0.0)
    said = labelled(found, [n == 0 for n in range(1000)], list(range(SILENT_LABELS - 1)))
    assert estimate(said, {"colour": 1000}).whole.error == pytest.approx(wilson(1, 1000))
    enough = labelled(found, [n == 0 for n in range(1000)], list(range(SILENT_LABELS)))
    assert estimate(enough, {"colour": 1000}).whole.error.share == pytest.approx(1 / SILENT_LABELS)


def test_labels_of_two_edits_weigh_as_much_as_what_they_stand_for() -> None:
    """All labels of the rare edit say true, none of the common one: the share is the rare edit's, not the labels'."""
    found = [Verdict(negative("a", f"x{n}", edit=edit), {}, (edit == "swap") if n < 150 else None)
             for edit in ("colour", "swap") for n in range(500)]  # fmt: skip
    whole = estimate(found, {"colour": 9500, "swap": 500}).whole
    assert whole.error.share == pytest.approx(0.05)
    assert whole.labelled == 300


def test_every_judged_row_is_written_with_its_reasons() -> None:
    judged = [Verdict(negative("a", "b"), {"ontology": "why"}), Verdict(negative("a", "c"), {}, False)]
    found = table(judged).to_pylist()
    assert [(row["verdict"], row["label"], row["ontology"]) for row in found] == [
        ("true", None, "why"), ("false", "false", None)
    ]  # fmt: skip


def test_a_key_tells_apart_what_differs() -> None:
    keys = {key_of({"row_id": a, "negative": b}) for a, b in (("a", "bc"), ("ab", "c"), ("a", "b"))}
    assert len(keys) == 3
    assert key_of({"row_id": "a", "negative": "b"}) == hashlib.sha256(b"a\0b").hexdigest()[:16]


@pytest.mark.parametrize("values", [{"per_edit": 0}, {"max_error": 0.0}, {"max_error": 1.0}])
def test_settings_that_make_no_sense_are_refused(values: Row) -> None:
    with pytest.raises(ValueError, match="must"):
        AuditConfig(**values)


def test_witnesses_are_silent_on_plain_edits_of_real_captions() -> None:
    """Colours that neither the product nor its family names: hardly a false alarm."""
    rows = [dict(row) for row in starter_rows()[:3000] if row["base_colour"] == "Black" and row["title"]]
    items = [negative(row["derived_caption"], row["derived_caption"].replace("black", "yellow"), row_id=row["row_id"],
                      kind="derived") for row in rows]  # fmt: skip
    found = judge(items, Witnesses(rows))
    said = [verdict for verdict in found if verdict.true]
    assert len(found) > 300
    assert all("yellow" in product_text(rows, verdict.row["row_id"]) for verdict in said)
    assert len(said) < 0.02 * len(found)


def product_text(rows: list[Row], row_id: str) -> str:
    return " ".join(str(value) for row in rows if row["row_id"] == row_id for value in row.values()).lower()
