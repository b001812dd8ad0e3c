"""The dataset stage on small landed drops: merging, pictures, checks, repeatability and user mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import landed_row, product, starter_rows, workspace, write_drop
from PIL import Image

from data import dataset, record, schema
from data.dataset import DatasetConfig
from data.params import UserError, strict
from data.statistics import _leaks


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


def build(*flags: str) -> list[dict[str, Any]]:
    assert dataset.main(list(flags)) == 0
    return pq.read_table("store/dataset/products.parquet").to_pylist()


def test_a_drop_becomes_a_dataset(work: Path) -> None:
    rows = [landed_row(n, row) for n, row in enumerate(starter_rows()[:60])]
    rows.append(landed_row(60, starter_rows()[60], picture=0))  # the same pixels as the first product
    write_drop(work / "store", "aa", rows, landed=0)
    products = build()
    assert [row["id"] for row in products] == [row["id"] for row in rows]
    assert products[0]["group"] == products[60]["group"]
    assert {row["split"] for row in products} <= {"train", "val", "test"}
    images = pq.ParquetFile("store/dataset/images.parquet")
    keys = images.read()["image_key"].to_pylist()
    assert len(keys) == len(set(keys)) == 60
    assert {row["image_key"] for row in products} == set(keys)
    assert images.read()["jpeg"][0].as_py() == rows[0]["image"]


def test_record_statistics_and_pictures(work: Path) -> None:
    write_drop(work / "store", "aa", [landed_row(n, row) for n, row in enumerate(starter_rows()[:60])], landed=0)
    build()
    made = record.verify(Path("store/dataset"))
    counts = json.loads(Path("store/dataset/statistics.json").read_text())
    assert made.summary["products"] == counts["products"] == 60
    assert sum(made.summary[split] for split in ("train", "val", "test")) == 60
    assert sum(sum(found.values()) for found in counts["attributes"]["gender"].values()) == 60
    critical = [check for check in made.checks if check["severity"] == "critical"]
    assert len(critical) == 3
    assert all(check["passed"] for check in critical)
    for path in made.pictures.values():
        with Image.open(Path("store/dataset") / path) as picture:
            assert min(picture.size) > 200


def test_a_later_drop_replaces_rows_by_id_and_keeps_splits(work: Path) -> None:
    first = [landed_row(n, row) for n, row in enumerate(starter_rows()[:80])]
    write_drop(work / "store", "zz", first, landed=0)
    before = {row["id"]: row for row in build()}
    renamed = [{**starter_rows()[n], "title": f"Renamed {n}"} for n in range(40)]
    write_drop(work / "store", "aa", [landed_row(100 + n, row) for n, row in enumerate(renamed)], landed=1)
    after = {row["id"]: row for row in build()}
    assert set(after) == set(before)
    assert {after[row["id"]]["title"] for row in renamed} == {row["title"] for row in renamed}
    assert {name: row["split"] for name, row in after.items()} == {name: row["split"] for name, row in before.items()}
    assert record.read(Path("store/dataset")).summary["replaced_rows"] == 40
    keys = pq.read_table("store/dataset/images.parquet")["image_key"].to_pylist()
    assert set(keys) == {row["image_key"] for row in after.values()}


def withdraw(folder: Path, *products: tuple[str, int], catalog: str = "fashion") -> None:
    """The withdrawals of a landed drop: (product id, line of the drop's table)."""
    rows = [{"catalog": catalog, "id": name, "drop_id": folder.name, "row": line} for name, line in products]
    pq.write_table(pa.Table.from_pylist(rows), folder / "withdrawn.parquet")


def test_a_withdrawn_product_is_gone_until_it_lands_again(work: Path) -> None:
    rows = [landed_row(n, product(id=str(n), title=f"Shirt {n}")) for n in range(4)]
    write_drop(work / "store", "aa", rows, landed=1)
    before = {row["id"]: row["split"] for row in build()}
    folder = write_drop(work / "store", "bb", [], landed=2)
    withdraw(folder, ("1", 2), ("2", 3), ("unknown", 4))
    assert [row["id"] for row in build()] == ["0", "3"]
    assert record.read(Path("store/dataset")).summary["withdrawn_products"] == 2
    assert len(pq.read_table("store/dataset/images.parquet")) == 2
    write_drop(work / "store", "cc", [landed_row(20, product(id="1", title="Shirt again"))], landed=3)
    after = {row["id"]: row for row in build()}
    assert {name: row["split"] for name, row in after.items()} == {name: before[name] for name in ("0", "3", "1")}
    assert after["1"]["title"] == "Shirt again"


def test_within_a_drop_the_later_line_counts(work: Path) -> None:
    rows = [landed_row(n, product(id=str(n), title=f"Shirt {n}")) for n in range(3)]  # on lines 2, 3 and 4
    withdraw(write_drop(work / "store", "aa", rows, landed=1), ("0", 1), ("1", 9))
    assert [row["id"] for row in build()] == ["0", "2"]


def test_a_catalog_without_any_product_left_is_an_error(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    withdraw(write_drop(work / "store", "aa", [landed_row(0, product(id="7"))], landed=1), ("7", 9))
    assert dataset.main([]) == 2
    assert "every product was withdrawn" in capsys.readouterr().err


def test_products_are_told_apart_by_catalog_and_id(work: Path) -> None:
    write_drop(work / "store", "aa", [landed_row(0, product(id="1", title="Shirt"))], landed=1)
    empty = dict.fromkeys(("gender", "master_category", "sub_category", "article_type", "base_colour", "usage"))
    apple = {**product(id="1", title="Golden apple", **empty), "derived_caption": None}
    folder = write_drop(work / "store", "bb", [landed_row(1, apple) | {"catalog": "grocery"}], landed=2)
    assert [(row["catalog"], row["id"], row["title"]) for row in build()] == [
        ("fashion", "1", "Shirt"), ("grocery", "1", "Golden apple")
    ]  # fmt: skip
    made = record.read(Path("store/dataset"))
    assert "drift of the last drop" not in made.tables  # its catalog has nothing to compare it with
    assert all(check["passed"] for check in made.checks if check["severity"] == "critical")
    withdraw(folder, ("1", 9), catalog="grocery")
    assert [row["catalog"] for row in build()] == ["fashion"]


def test_a_catalog_of_nothing_but_pictures(work: Path) -> None:
    empty = dict.fromkeys(name for name in schema.NAMES if name != "id")
    rows = [landed_row(n, {**empty, "id": str(n)}) for n in range(30)]
    write_drop(work / "store", "aa", rows, landed=1)
    assert len({row["family"] for row in build()}) == 30
    assert record.verify(Path("store/dataset")).summary["products"] == 30


def test_a_row_between_splits_is_held_back_and_said_why(work: Path) -> None:
    rows = [landed_row(n, product(id=str(n), title=f"Shirt {n}")) for n in range(40)]
    write_drop(work / "store", "aa", rows, landed=1)
    placed = {row["id"]: row for row in build()}
    train, test = (next(row for row in placed.values() if row["split"] == split) for split in ("train", "test"))
    bridge = landed_row(50, product(id="new", title=train["title"]), picture=int(test["id"]))
    update = landed_row(51, product(id=train["id"], title=test["title"]))
    write_drop(work / "store", "bb", [bridge, update], landed=2)
    after = {row["id"]: row for row in build()}
    assert {name: (row["title"], row["split"]) for name, row in after.items()} == {
        name: (row["title"], row["split"]) for name, row in placed.items()
    }
    held = pq.read_table("store/dataset/held_back.parquet").to_pylist()
    assert [row["id"] for row in held] == ["new", train["id"]]
    assert held[0]["because"] == sorted([
        f"picture {test['image_key']} is in test", f"title {train['title'].lower()} is in train"
    ])  # fmt: skip
    check = next(c for c in record.read(Path("store/dataset")).checks if c["name"] == "every_row_fits_a_split")
    assert (check["passed"], check["count"], check["severity"]) == (False, 2, "warning")
    assert check["examples"] == [row["row_id"] for row in held]


def noise(seed: int, form: str = "PNG", scale: int = 1) -> bytes:
    """A picture full of shapes; the same in another file format or size for the same seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    size = (60 * scale, 80 * scale)
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


def test_pictures_that_look_the_same_share_a_split(work: Path) -> None:
    """Every product of the second drop shows a picture of the first one, saved again in another size and format."""

    def rows(first: int, **form: Any) -> list[dict[str, Any]]:
        numbers = range(first, first + 25)
        titled = [product(id=str(n), title=f"{'Old' if form else 'New'} shirt {n}") for n in numbers]
        return [landed_row(n, row, image=noise(n % 100, **form)) for n, row in zip(numbers, titled, strict=True)]

    write_drop(work / "store", "aa", rows(0), landed=1)
    write_drop(work / "store", "bb", rows(100, form="JPEG", scale=2), landed=2)
    found = {int(row["id"]): row for row in build()}
    assert len({row["image_key"] for row in found.values()}) == 50
    assert len({row["family"] for row in found.values()}) == 25
    assert all(found[n]["split"] == found[100 + n]["split"] for n in range(25))
    assert {row["split"] for row in found.values()} == {"train", "val", "test"} or len(found) == 50


def test_the_leak_check_sees_leaks_of_every_kind() -> None:
    """The check is told nothing of how splits were made: every pair of rows below leaks through one thing only."""
    pairs = {
        "picture": ({"title": "Aaa", "image_key": "p"}, {"title": "Bbb", "image_key": "p"}, False),
        "title": ({"title": "Blue  Shirt"}, {"title": "blue shirt"}, False),
        "family": ({"title": "Vans Versa Blue Shoes"}, {"title": "Vans Men Versa Black Shoes"}, False),
        "likeness": ({"title": "Ccc", "image_key": "x"}, {"title": "Ddd", "image_key": "y"}, True),
        "nothing": ({"title": "Vans Versa"}, {"title": "Puma Versa"}, False),
    }
    for kind, (one, other, near) in pairs.items():
        rows = [
            product(row_id=split, split=split, image_key=split, id=split, article_type="Shoes") | row
            for split, row in (("train", one), ("test", other))
        ]
        check = _leaks(pd.DataFrame(rows), {"y": ["x"]} if near else {})
        assert check["passed"] == (kind == "nothing"), kind
        assert check["examples"] == ([] if kind == "nothing" else ["test", "train"]), kind


def test_order_of_landing_decides(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (landed_row(n, {**starter_rows()[0], "title": title}) for n, title in enumerate(("Old", "New")))
    write_drop(work / "store", "zz", [old], landed=0)
    write_drop(work / "store", "aa", [new], landed=1)
    assert [row["title"] for row in build()] == ["New"]
    (work / "store/drops/zz/report.json").write_text("{}")
    assert dataset.main([]) == 2
    assert "zz/report.json: not a report" in capsys.readouterr().err


def test_running_again_does_nothing_and_force_makes_the_same(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_drop(work / "store", "aa", [landed_row(n, row) for n, row in enumerate(starter_rows()[:40])], landed=0)
    build()
    first = record.read(Path("store/dataset")).id
    build()
    assert "up to date" in capsys.readouterr().err
    build("--force")
    assert record.verify(Path("store/dataset")).id == first


def test_drift_of_the_last_drop_is_told(work: Path) -> None:
    men = [landed_row(n, product(id=str(n), title=f"Men {n}", usage=None, base_colour=None)) for n in range(20)]
    women = [landed_row(50 + n, product(id=f"w{n}", title=f"Women {n}", gender="Women")) for n in range(5)]
    write_drop(work / "store", "aa", men, landed=0)
    write_drop(work / "store", "bb", women, landed=1)
    build()
    made = record.read(Path("store/dataset"))
    drift = {row["attribute"]: row for row in made.tables["drift of the last drop"]}
    assert drift["gender"]["distance"] == 1.0
    assert drift["gender"]["grew_most"] == "Women"
    assert drift["article_type"]["distance"] == 0.0
    check = next(c for c in made.checks if c["name"] == "last_drop_resembles_the_others")
    assert not check["passed"]


@pytest.mark.parametrize("report", ["not json", "[]"])
def test_a_damaged_report_is_named(work: Path, report: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_drop(work / "store", "aa", [landed_row(0, starter_rows()[0])], landed=0)
    (folder / "report.json").write_text(report)
    assert dataset.main([]) == 2
    assert "store/drops/aa/report.json" in capsys.readouterr().err
    assert not Path("store/dataset").exists()


def test_no_drop_is_an_error_with_a_cure(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "store/drops").mkdir()
    assert dataset.main([]) == 2
    assert "data.land" in capsys.readouterr().err


@pytest.mark.parametrize("shares", [{"val_share": 0.0}, {"val_share": 0.5, "test_share": 0.5}, {"max_drift": 0.0}])
def test_impossible_settings_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: dataset"):
        strict(DatasetConfig, shares, where="params.yaml: dataset")
