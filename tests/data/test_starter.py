"""The starter catalog is all of the source, cut in two by id."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_drops import STARTER

CUT = 39182


def rows(name: str) -> list[dict[str, str]]:
    with (STARTER / name / "catalog.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("name", "products", "images"), [("drop-1", 9661, 9660), ("drop-2", 4139, 4135)])
def test_row_and_image_counts(name: str, products: int, images: int) -> None:
    listed = {row["id"] for row in rows(name)}
    shown = [key for shard in (STARTER / name).glob("*.parquet") for key in pq.read_table(shard)["id"].to_pylist()]
    assert len(listed) == len(rows(name)) == products
    assert len(shown) == len(set(shown)) == images
    assert set(shown) < listed


def test_the_cut_is_by_id_and_nothing_is_lost() -> None:
    first, second = rows("drop-1"), rows("drop-2")
    assert max(int(row["id"]) for row in first) <= CUT < min(int(row["id"]) for row in second)
    assert len(first) + len(second) == 13_800


def test_every_row_names_the_shard_that_holds_its_image() -> None:
    for name in ("drop-1", "drop-2"):
        held = {
            shard.name: set(pq.read_table(shard, columns=["id"])["id"].to_pylist())
            for shard in (STARTER / name).glob("*.parquet")
        }
        without = [row["id"] for row in rows(name) if not row["shard"]]
        assert all(row["id"] in held[row["shard"]] for row in rows(name) if row["shard"])
        assert without == {"drop-1": ["12347"], "drop-2": ["39401", "39403", "39410", "39425"]}[name]


def test_the_notice_says_where_it_comes_from() -> None:
    notice = Path(STARTER / "NOTICE.md").read_text(encoding="utf-8")
    for word in ("Param Aggarwal", "Myntra", "MIT", "derived_caption", "39182"):
        assert word in notice
