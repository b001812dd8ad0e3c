"""The dataset stage on small landed drops: merging, pictures, checks, repeatability and user mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalogs import landed_row, product, starter_rows, workspace, write_drop
from PIL import Image

from data import dataset, record
from data.dataset import DatasetConfig
from data.params import UserError, strict


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
    assert all(after[name]["split"] == "train" for name in before if before[name]["split"] == "train")
    assert record.read(Path("store/dataset")).summary["replaced_rows"] == 40
    keys = pq.read_table("store/dataset/images.parquet")["image_key"].to_pylist()
    assert set(keys) == {row["image_key"] for row in after.values()}


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
