"""Updates and withdrawals: what a later drop changes, what it takes off the catalog, and what it says of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_drops import Built, build, jpeg

from data import record, schema
from data.drops import read_drop
from data.land import land, summary
from data.params import UserError

CSV = "id,withdrawn\n00007,true\n00009,yes\n00007,1\n99999,TRUE\n"


def withdraw(built: Built, *positions: int, said: str = "true") -> Built:
    for position, row in enumerate(built.rows):
        row["withdrawn"] = said if position in positions else ""
    return built


def only(folder: Path, text: str = CSV) -> Path:
    """A drop that takes products back: no pictures, and no column but the id."""
    folder.mkdir()
    (folder / "withdrawn.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("table", ["csv", "jsonl", "parquet"])
def test_withdrawn_rows_are_set_apart(built: Built, tmp_path: Path, table: str) -> None:
    drop = read_drop(withdraw(built, 2, 5, said="Yes").write(tmp_path / "drop", table))
    kept = [row["id"] for position, row in enumerate(built.rows) if position not in (2, 5)]
    assert drop.table.columns["id"] == kept
    line = {"csv": 2}.get(table, 1)
    assert drop.table.withdrawn.to_pylist() == [
        {"id": built.rows[2]["id"], "row": line + 2}, {"id": built.rows[5]["id"], "row": line + 5},
    ]  # fmt: skip
    assert drop.where(2) == f"drop/catalog.{table} line {line + 3}"
    assert [place and place.read() for place in drop.places] == [built.images[f"{name}.jpg"] for name in kept]


def test_json_and_parquet_may_say_it_in_their_own_types(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "t.jsonl").write_text('{"id": "1", "withdrawn": true}\n{"id": 2, "withdrawn": 1}\n')
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "withdrawn": [True, True]}), tmp_path / "parquet" / "t.parquet")
    for name in ("json", "parquet"):
        drop = read_drop(tmp_path / name)
        assert (len(drop), drop.table.withdrawn["id"].to_pylist()) == (0, ["1", "2"])


REFUSED: list[tuple[str, Callable[[Built], object], list[str]]] = [
    ("unclear", lambda b: withdraw(b, 3, said="perhaps"), ["catalog.csv line 5", "`withdrawn`", "'perhaps'", "true"]),
    ("no id", lambda b: withdraw(b, 3).rows[3].update(id=" "), ["catalog.csv line 5", "`id`", "name the product"]),
    ("both", lambda b: withdraw(b, 3).rows[3].update(id="00007"), ["line 2", "'00007'", "leave one of the two"]),
    ("no column", lambda b: [r.pop("gender") for r in withdraw(b, 3).rows], ["`gender`", "missing"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_withdrawal_in_doubt_refuses_the_drop(
    built: Built, tmp_path: Path, change: Callable[[Built], object], words: list[str]
) -> None:
    change(built)
    with pytest.raises(UserError) as caught:
        read_drop(built.write(tmp_path / "drop"))
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_catalog_through_four_drops(repository: Path, tmp_path: Path) -> None:
    """Twelve products; then one changes, one is new and one goes; then two go; then one of these comes back."""
    (first,) = land([build().write(tmp_path / "first")])
    assert (first.report["new"], first.report["withdrawn"]) == (12, 0)
    assert pq.read_table(first.folder / "withdrawn.parquet").schema.equals(schema.withdrawn_schema())

    update = build(4, first=10)  # 10 to 13
    update.rows.append(build(1, first=40).rows[0])
    update.images |= {"00040.jpg": jpeg(40), "00011.jpg": jpeg(111)}
    (second,) = land([withdraw(update, 3).write(tmp_path / "second")])
    changes = {key: second.report[key] for key in ("rows", "new", "changed", "unchanged", "withdrawn")}
    assert changes == {"rows": 4, "new": 1, "changed": 1, "unchanged": 2, "withdrawn": 1}
    assert pq.read_table(second.folder / "withdrawn.parquet").to_pylist() == [
        {"catalog": "fashion", "id": "00013", "drop_id": second.drop_id, "row": 5}
    ]

    (third,) = land([only(tmp_path / "third")])
    assert pq.read_table(third.folder / "withdrawn.parquet")["id"].to_pylist() == ["00007", "00009", "99999"]
    products = pq.read_table(third.folder / "products.parquet")
    assert (len(products), products.schema.equals(schema.products_schema())) == (0, True)
    assert (third.report["withdrawn"], third.report["withdrawn_unknown"]) == (3, 1)
    said = summary(third)
    assert "      3  withdrawn\n        1    of which the catalog had no such product" in said
    assert record.verify(third.folder).summary["withdrawn"] == 3

    (fourth,) = land([build(2, first=12).write(tmp_path / "fourth")])  # 12 stands, 13 was withdrawn by the second
    assert (fourth.report["new"], fourth.report["unchanged"]) == (1, 1)
    (again,) = land([tmp_path / "second"], force=True)  # it keeps its place in the order of landing
    assert again.record_id == second.record_id
