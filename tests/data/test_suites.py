"""From landed drop to exam: the negatives and suites stages end to end, repeatable to the byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalogs import landed_row, product, starter_rows, workspace, write_drop

from data import dataset, record, suites
from data.negatives import build
from data.negatives.filters import REASONS
from data.negatives.hard_rule import violations
from data.params import UserError, strict
from data.splits import position, split_key
from data.suites import Suites, SuitesConfig, check_unseen, retrieval
from data.suites_attributes import attributes, classes, commonest, task_table
from data.suites_composed import CHANGES, check_composed, composed, condition
from data.suites_items import balance, item_id
from data.text import title_key

Row = dict[str, Any]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset, negatives and suites of 900 starter products, made once."""
    folder = workspace(tmp_path_factory.mktemp("suites"))
    write_drop(folder / "store", "aa", [landed_row(n, row) for n, row in enumerate(starter_rows()[:900])], landed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert dataset.main([]) == build.main([]) == suites.main([]) == 0
    return folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def table(name: str) -> list[Row]:
    return pq.read_table(Path("store") / name).to_pylist()


def products() -> dict[str, Row]:
    return {row["row_id"]: row for row in table("dataset/products.parquet")}


def test_negatives_are_of_train_and_val_and_suites_of_test(here: Path) -> None:
    split = {row_id: row["split"] for row_id, row in products().items()}
    assert {split[row["row_id"]] for row in table("negatives/negatives.parquet")} == {"train", "val"}
    for name in suites.SCHEMAS:
        assert {split[row["row_id"]] for row in table(f"suites/{name}.parquet")} == {"test"}


def test_suite_items_keep_the_hard_rule_over_all_splits(here: Path) -> None:
    items = table("suites/compositional.parquet")
    assert len(items) > 200
    assert list(violations(items, list(products().values()))) == []
    for item in items:
        row = products()[item["row_id"]]
        assert (item["image_key"], item["group"]) == (row["image_key"], row["group"])
        assert item["item_id"] == item_id(item["row_id"], item["caption_kind"], item["edit"], item["negative"])


def test_retrieval_asks_for_every_titled_test_product(here: Path) -> None:
    titled = [row for row in products().values() if row["split"] == "test" and row["title"]]
    items = table("suites/retrieval.parquet")
    assert [item["row_id"] for item in items] == [row["row_id"] for row in titled]
    assert all(item["title_key"] == item["caption"].casefold().replace("’", "'") for item in items)


def test_every_critical_check_passes_and_pictures_are_there(here: Path) -> None:
    for name in ("negatives", "suites"):
        made = record.verify(Path("store") / name)
        critical = [check for check in made.checks if check["severity"] == "critical"]
        assert critical
        assert all(check["passed"] for check in critical)
        assert all((Path("store") / name / picture).is_file() for picture in made.pictures.values())
        assert {row["edit"] for row in made.tables["what became of the drafts"]} >= {"colour", "swap"}
    tally = made.tables["what became of the drafts"]
    for row in tally:
        assert row["drafts"] == row["kept"] + sum(row[reason] for reason in REASONS)


@pytest.mark.parametrize("stage", [build, suites])
def test_made_again_the_files_are_the_same_bytes(here: Path, stage: Any) -> None:
    first = record.read(stage.OUT)
    before = {path.name: path.read_bytes() for path in Path(stage.OUT).glob("*.parquet")}
    assert stage.main(["--force"]) == 0
    assert record.verify(stage.OUT).id == first.id
    assert {path.name: path.read_bytes() for path in Path(stage.OUT).glob("*.parquet")} == before


def test_an_empty_test_split_is_an_error_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    title = min((f"Tee {n}" for n in range(9)), key=lambda text: position(split_key(title_key(text), "")))
    write_drop(tmp_path / "store", "aa", [landed_row(0, {**starter_rows()[0], "title": title})], landed=0)
    assert dataset.main([]) == 0
    assert suites.main([]) == 2
    assert "test split is empty" in capsys.readouterr().err
    assert not Path("store/suites").exists()


def test_missing_dataset_is_an_error_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace(tmp_path))
    assert build.main([]) == 2
    assert "dvc repro" in capsys.readouterr().err


def test_balance_keeps_the_smallest_ids_of_each_edit_in_order() -> None:
    items = [{"edit": edit, "item_id": name} for edit, name in [("a", "3"), ("a", "1"), ("b", "9"), ("a", "2")]]
    assert [item["item_id"] for item in balance(items, 2)] == ["1", "9", "2"]
    assert Counter(item["edit"] for item in balance(items, 1)) == {"a": 1, "b": 1}


def test_retrieval_leaves_untitled_products_out_and_cleans_titles() -> None:
    rows = [product(title="  Puma  Tee "), product(title=None), product(title="PUMA tee", row_id="r1")]
    found = retrieval(rows)
    assert [item["caption"] for item in found] == ["Puma Tee", "PUMA tee"]
    assert len({item["title_key"] for item in found}) == 1
    assert len({item["item_id"] for item in found}) == 2


def test_a_catalog_without_titles_is_asked_by_its_derived_captions() -> None:
    home = [
        product(catalog="home", row_id=f"h{n}", derived_caption=said)
        for n, said in enumerate(["a photo of a hat", None, "A photo of  a HAT"])
    ]
    found = retrieval([product(title="Puma Tee"), product(title=None, row_id="r1"), *home])
    assert [(item["row_id"], item["caption"]) for item in found] == [
        ("r0", "Puma Tee"), ("h0", "a photo of a hat"), ("h2", "A photo of a HAT"),
    ]  # fmt: skip
    assert found[1]["title_key"] == found[2]["title_key"]


def test_item_ids_tell_parts_apart() -> None:
    assert item_id("ab", "c") != item_id("a", "bc")
    assert len(item_id("x")) == 16


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="per_edit"):
        strict(SuitesConfig, {"per_edit": 0}, where="params.yaml: suites")
    with pytest.raises(UserError, match="per_change"):
        strict(SuitesConfig, {"per_change": 0}, where="params.yaml: suites")
    with pytest.raises(UserError, match="candidates"):
        strict(build.NegativesConfig, {"candidates": 0}, where="params.yaml: negatives")


def test_attribute_items_ask_for_classes_only(here: Path) -> None:
    rows = list(products().values())
    known = classes(row for row in rows if row["split"] == "train")
    items = table("suites/attributes.parquet")
    asked = {(item["row_id"], item["task"]): item["label"] for item in items}
    assert len(asked) == len(items) > 300
    for row in rows:
        for task, values in known.items():
            expected = row[task] if row["split"] == "test" and row[task] in values else None
            assert asked.get((row["row_id"], task)) == expected
    shown = {row["task"]: row for row in record.read(Path("store/suites")).tables["attribute items"]}
    labels = Counter(item["label"] for item in items if item["task"] == "gender")
    assert shown["gender"]["commonest"] == "Men"
    assert shown["gender"]["always_guessing_it"] == round(labels["Men"] / labels.total(), 4)


def test_classes_are_the_frequent_values_of_train() -> None:
    """Ten products make a class, nine do not; a task with one class is not asked."""
    genders = ["Men"] * 10 + ["Women"] * 11 + ["Girls"] * 9 + [None] * 30
    train = [product(gender=gender) for gender in genders]
    known, usual = classes(train), commonest(train)
    assert known["gender"] == ["Men", "Women"]
    assert known["usage"] == ["Casual"]
    assert known["season"] == []
    rows = [product(gender=gender, row_id=gender) for gender in ("Men", "Girls", "Women", "Women")]
    items = attributes(rows, known, usual)
    assert [(item["task"], item["label"]) for item in items] == [("gender", g) for g in ("Men", "Women", "Women")]
    assert {item["commonest"] for item in items} == {"Women"}
    assert task_table(items, known) == [
        {"task": "gender", "classes": 2, "items": 3, "commonest": "Women", "always_guessing_it": 0.6667}
    ]
    assert commonest([product(gender="Women"), product(gender="Men")])["gender"] == "Men"


def test_composed_answers_differ_in_exactly_one_attribute(here: Path) -> None:
    """Read again by brute force over all pairs of test products, answers complete and none too many."""
    rows = [row for row in products().values() if row["split"] == "test" and all(row[name] for name in CHANGES)]
    by_id = {row["row_id"]: row for row in rows}
    items = table("suites/composed.parquet")
    assert len(items) > 60
    for item in items:
        query = by_id[item["row_id"]]
        wanted = {name: query[name] for name in CHANGES} | {item["changed"]: item["value"]}
        right = {row["image_key"] for row in rows if all(row[name] == value for name, value in wanted.items())}
        assert item["targets"] == sorted(right - {query["image_key"]}) != []
        assert query[item["changed"]] != item["value"]
        assert (item["image_key"], item["group"]) == (query["image_key"], query["group"])


def shop() -> list[Row]:
    """A white, two red and a red formal T-shirt for men, a white one for women, a red pair of jeans."""
    changed: list[Row] = [
        {}, {"base_colour": "Red"}, {"base_colour": "Red"}, {"base_colour": "Red", "usage": "Formal"},
        {"gender": "Unisex"}, {"base_colour": "Red", "article_type": "Jeans"},
    ]  # fmt: skip
    return [product(**values, row_id=f"r{n}", image_key=f"k{n}", split="test") for n, values in enumerate(changed)]


def test_composed_items_by_hand() -> None:
    found = {(item["row_id"], item["changed"]): item for item in composed(shop(), 9)}
    red = found["r0", "base_colour"]
    assert (red["value"], red["condition"], red["targets"]) == ("Red", "in red", ["k1", "k2"])
    assert found["r0", "gender"]["condition"] == "for men and women"
    assert found["r1", "article_type"]["condition"] == "as jeans"
    assert found["r1", "usage"]["condition"] == "for formal wear"
    assert found["r3", "usage"]["targets"] == ["k1", "k2"]
    assert ("r0", "article_type") not in found  # there is no white pair of jeans
    assert ("r5", "base_colour") not in found
    assert condition("base_colour", "Navy Blue") == "in navy blue"


def test_a_photo_that_query_and_answer_share_is_no_answer() -> None:
    rows = shop()
    rows[1]["image_key"] = "k0"  # one photo of the white and the red shirt
    assert {item["row_id"]: item["targets"] for item in composed(rows, 9) if item["value"] == "Red"}["r0"] == ["k2"]
    rows[2]["image_key"] = "k0"
    assert "r0" not in {item["row_id"] for item in composed(rows, 9) if item["value"] == "Red"}


def test_unknown_attributes_are_neither_asked_about_nor_answers() -> None:
    rows = shop()
    rows[2]["usage"] = None
    found = composed(rows, 9)
    assert "r2" not in {item["row_id"] for item in found}
    assert "k2" not in {key for item in found for key in item["targets"]}
    rows[1]["season"] = "Fall"  # nothing one could see
    assert composed(rows, 9) == found


def test_an_attribute_that_a_whole_catalog_lacks_does_not_count() -> None:
    """Of a grocer's products nobody wears, colours and kinds are asked for; nothing is said of another catalog's."""
    fruit = [("Apple", "Red"), ("Apple", "Green"), ("Pear", "Green"), ("Pear", None)]
    rows = [
        product(catalog="grocery", row_id=f"g{n}", image_key=f"g{n}", article_type=kind, base_colour=colour,
                gender=None, usage=None, split="test")
        for n, (kind, colour) in enumerate(fruit)
    ]  # fmt: skip
    asked = {(item["row_id"], item["condition"]): item["targets"] for item in composed(rows, 9)}
    assert asked == {
        ("g0", "in green"): ["g1"], ("g1", "in red"): ["g0"], ("g1", "as pear"): ["g2"], ("g2", "as apple"): ["g1"],
    }  # fmt: skip
    both = composed([*shop(), *rows, product(row_id="r8", image_key="k8", usage=None, split="test")], 9)
    assert both == [*composed(shop(), 9), *composed(rows, 9)]
    run = Checks()
    check_composed(run, both, [*shop(), *rows])  # type: ignore[arg-type]
    assert run.failed == []


def test_at_most_so_many_items_per_change_and_the_same_ones_in_a_larger_shop() -> None:
    few, all_ = composed(shop(), 1), composed(shop(), 9)
    assert set(Counter(item["changed"] for item in few).values()) == {1}
    for name in CHANGES:
        assert [i for i in few if i["changed"] == name] == [
            min((i for i in all_ if i["changed"] == name), key=lambda item: item["item_id"])
        ]
    ids = {(item["row_id"], item["value"]): item["item_id"] for item in all_}
    more = composed([*shop(), product(row_id="r9", image_key="k9", base_colour="Red", split="test")], 9)
    assert all(ids.get((i["row_id"], i["value"]), i["item_id"]) == i["item_id"] for i in more)


class Checks:
    """What a run is told about its checks."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def check(self, name: str, passed: bool, *, examples: list[str], **_: object) -> None:
        self.failed += [] if passed else examples


@pytest.mark.parametrize(
    "change",
    [{"targets": []}, {"targets": ["k0", "k1"]}, {"targets": ["k1", "k5"]}, {"value": "White"}, {"targets": ["k3"]}],
)
def test_wrong_composed_items_are_found(change: Row) -> None:
    """No answer, the query's own photo, two differences, no difference asked for, another usage as well."""
    item = next(i for i in composed(shop(), 9) if i["row_id"] == "r0" and i["changed"] == "base_colour")
    run = Checks()
    check_composed(run, [item], shop())  # type: ignore[arg-type]
    assert run.failed == []
    check_composed(run, [item | change], shop())  # type: ignore[arg-type]
    assert run.failed == [item["item_id"]]


def test_a_photo_of_the_train_split_is_found() -> None:
    rows = [*shop(), product(row_id="r9", image_key="k2")]
    made = Suites(rows, [], [], [], composed(shop(), 9))
    run = Checks()
    check_unseen(run, made)  # type: ignore[arg-type]
    assert (
        run.failed == [item["item_id"] for item in made.composed if "k2" in (item["image_key"], *item["targets"])] != []
    )
