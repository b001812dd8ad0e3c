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
from data.negatives.audit import violations
from data.params import UserError, strict
from data.splits import position, split_key
from data.suites import SuitesConfig, balance, item_id, retrieval
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
    assert {split[row["row_id"]] for row in table("suites/compositional.parquet")} == {"test"}
    assert {split[row["row_id"]] for row in table("suites/retrieval.parquet")} == {"test"}


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
        assert (Path("store") / name / made.pictures["examples"]).is_file()
        assert {row["edit"] for row in made.tables["what became of the drafts"]} >= {"colour", "swap"}
    tally = made.tables["what became of the drafts"]
    refusals = ("no_slot", "no_alternative", "symmetric", "balance", "repeated", "true_of_group", "named_in_group")
    for row in tally:
        assert row["drafts"] == row["kept"] + row["is_a_caption"] + sum(row[reason] for reason in refusals)


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


def test_item_ids_tell_parts_apart() -> None:
    assert item_id("ab", "c") != item_id("a", "bc")
    assert len(item_id("x")) == 16


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="per_edit"):
        strict(SuitesConfig, {"per_edit": 0}, where="params.yaml: suites")
    with pytest.raises(UserError, match="candidates"):
        strict(build.NegativesConfig, {"candidates": 0}, where="params.yaml: negatives")
