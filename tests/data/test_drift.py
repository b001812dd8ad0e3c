"""Drift: distances worked out by hand, what chance explains, and the real drops of the starter catalog."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from data import drift, drift_sample, schema
from data.drift import ORIGIN, Limits, energy, measure
from data.drops import Drop
from data.gx import Suite
from data.params import UserError, strict
from data.stage import Run

Starter = dict[str, tuple[Drop, pa.Table]]


def table(feature: str, new: list[Any], old: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({ORIGIN: ["drop"] * len(new) + ["dataset"] * len(old), feature: [*new, *old]})


def test_total_variation_by_hand() -> None:
    """Shares 3/4, 1/4 against 1/4, 1/2, 1/4: half of 1/2 + 1/4 + 1/4 is 1/2."""
    found = measure(
        table("gender", ["Men"] * 30 + ["Women"] * 10, ["Men"] * 10 + ["Women"] * 20 + ["Boys"] * 10), "gender"
    )
    assert found["distance"] == 0.5
    assert found["p"] < 1e-4
    assert found["note"] == "Men +50, Boys -25 points"


def test_kolmogorov_smirnov_by_hand() -> None:
    """30 of 40 numbers lie below every one of the others, so the cumulative shares differ by 3/4 there."""
    found = measure(table("year", [2000.0] * 30 + [2012.0] * 10, [2012.0] * 40), "year")
    assert found["distance"] == 0.75
    assert found["note"] == "median 2000, was 2012"


def test_energy_coefficient_by_hand() -> None:
    """On a line, {0, 2} against {4, 6} (spread 5 ** 0.5): A = 4, B = C = 2, so (8 - 4) / 8."""
    assert energy(np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]]), permutations=0) == (pytest.approx(0.5), 1.0)


def test_energy_permutations_are_exact_about_order() -> None:
    """p is the share of labellings with at least this coefficient: a tight, far-away sample beats all of them."""
    rng = np.random.default_rng(0)
    same, other = rng.normal(size=(50, 4)), rng.normal(size=(60, 4))
    assert energy(same + 9, other, permutations=199)[1] == pytest.approx(1 / 200)
    coefficient, p = energy(same, other, permutations=199)
    assert coefficient < 0.01
    assert p > 0.05
    assert (coefficient, p) == energy(same, other, permutations=199)


@pytest.mark.parametrize("feature", ["year", "gender"])
def test_too_few_rows_say_nothing(feature: str) -> None:
    new = [2000.0] * 29 if feature == "year" else ["Boys"] * 29
    old = [2012.0] * 500 if feature == "year" else ["Men"] * 500
    found = measure(table(feature, new, old), feature)
    assert (found["distance"], found["p"], found["note"]) == (0.0, 1.0, "too few to say")


def test_missing_values_of_numbers_do_not_count() -> None:
    found = measure(table("year", [2000.0] * 30 + [None] * 50, [2000.0] * 40), "year")
    assert (found["distance"], found["drop"], found["dataset"]) == (0.0, 30, 40)


@pytest.mark.parametrize("key", ["numbers", "titles", "alpha"])
def test_limits_are_shares(key: str) -> None:
    with pytest.raises(UserError, match=key):
        strict(Limits, {key: 0.0}, "params.yaml: land.drift")


def test_every_feature_has_one_rule_and_all_are_warnings() -> None:
    rules = drift.rules(Limits())
    assert len({rule.name for rule in rules}) == len(rules) == 14
    assert {rule.severity for rule in rules} == {"warning"}


def dataset(folder: Path, drop: Drop, pictures: pa.Table, rows: np.ndarray, drop_id: str = "before") -> Path:
    """The rows as the dataset stage writes them."""
    folder.mkdir()
    columns = {name: [schema.value(text) for text in drop.table.rows[name].take(pa.array(rows)).to_pylist()]
               for name in schema.NAMES}  # fmt: skip
    years = [schema.year(text or "") for text in columns["year"]]
    keys = pictures["key"].take(pa.array(rows)).to_pylist()
    more = {"year": pa.array(years, pa.int32()), "image_key": keys, "drop_id": [drop_id] * len(rows)}
    pq.write_table(pa.table(columns | more | {"catalog": ["fashion"] * len(rows)}), folder / "products.parquet")
    images = {key: drop.places[row].read() for key, row in zip(keys, rows.tolist(), strict=True)}  # type: ignore[union-attr]
    found = pa.table({"image_key": list(images), "jpeg": list(images.values())})
    pq.write_table(found, folder / "images.parquet", row_group_size=512)
    return folder


def complete(drop: Drop) -> np.ndarray:
    return np.array([row for row in range(len(drop)) if drop.places[row] is not None])


def reader(drop: Drop) -> Callable[[int], bytes]:
    return lambda row: drop.places[row].read()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def halves(starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Drop, np.ndarray]:
    """Half of the first drop as a dataset, the drop, and the rows of its other half."""
    drop, pictures = starter["drop-1"]
    order = np.random.default_rng(1).permutation(complete(drop))
    half = len(order) // 2
    return (
        dataset(tmp_path_factory.mktemp("half") / "dataset", drop, pictures, np.sort(order[:half])),
        drop,
        np.sort(order[half:]),
    )


def drifted(where: Path, drop: Drop, accepted: np.ndarray, **changes: Any) -> set[str]:
    given = {"rows": drop.table.rows, "read": reader(drop)} | changes
    found = drift_sample.sample(where, drop_id="new", catalog="fashion", accepted=accepted, **given)
    assert found is not None
    outcomes = Suite("test", []).run_drift(drift.rules(Limits()), found)
    return {item["feature"] for item in outcomes if not item["passed"]}


def test_the_halves_of_a_drop_do_not_drift(halves: tuple[Path, Drop, np.ndarray]) -> None:
    where, drop, rows = halves
    assert drifted(where, drop, rows) == set()
    assert drifted(where, drop, rows[:: len(rows) // 60]) == set()  # few rows differ by chance


def test_the_second_drop_of_the_starter_catalog_drifts(halves: tuple[Path, Drop, np.ndarray], starter: Starter) -> None:
    """More women's products, later years, small pictures only, as the catalog's description says."""
    drop = starter["drop-2"][0]
    found = drifted(halves[0], drop, complete(drop))
    assert {"year", "gender", "article_type", "image_width"} <= found
    assert not {"pictures", "titles"} & found  # the same studio and the same way of writing


def test_another_look_and_another_wording_are_drift(halves: tuple[Path, Drop, np.ndarray]) -> None:
    where, drop, rows = halves

    def framed(row: int) -> bytes:
        stream = io.BytesIO()
        picture = Image.open(io.BytesIO(reader(drop)(row))).convert("RGB")
        ImageOps.expand(picture, border=picture.width // 8, fill="#204060").resize(picture.size).save(stream, "JPEG")
        return stream.getvalue()

    titles = [f"Buy online: {title}" for title in drop.table.rows["title"].to_pylist()]
    place = drop.table.rows.column_names.index("title")
    assert drifted(where, drop, rows, rows=drop.table.rows.set_column(place, "title", pa.array(titles))) >= {"titles"}
    assert drifted(where, drop, rows, read=framed) == {"pictures", "image_grey_std"}


def test_a_drop_is_not_compared_with_itself_nor_with_another_catalog(
    halves: tuple[Path, Drop, np.ndarray], tmp_path: Path
) -> None:
    where, drop, rows = halves
    same = {"rows": drop.table.rows, "accepted": rows, "read": reader(drop)}
    assert drift_sample.sample(where, drop_id="before", catalog="fashion", **same) is None
    assert drift_sample.sample(where, drop_id="new", catalog="grocery", **same) is None
    assert drift_sample.sample(tmp_path, drop_id="new", catalog="fashion", **same) is None


def test_a_record_tells_of_drift(halves: tuple[Path, Drop, np.ndarray], tmp_path: Path) -> None:
    where, drop, rows = halves
    found = drift_sample.sample(
        where, drop_id="new", catalog="fashion", rows=drop.table.rows, accepted=rows[:100], read=reader(drop)
    )
    assert found is not None
    suite = Suite("test", [])
    outcomes = suite.run_drift(drift.rules(Limits()), found)
    run = Run(stage="land", out=tmp_path)
    drift.tell(run, Limits(), outcomes, "0123")
    checks = {check["name"]: check for check in run._checks}
    assert checks["drift_pictures"]["metadata"]["compared_with"] == "0123"
    assert checks["drift_pictures"]["severity"] == "warning"
    (rows_told,) = run._tables.values()
    assert [row["feature"] for row in rows_told] == [*drift.NUMBERS, *drift.CATEGORIES, *drift.EMBEDDINGS]
    assert Image.open(tmp_path / drift.PICTURE).width > 400


def test_drift_is_documented(tmp_path: Path) -> None:
    old = pd.DataFrame({"gender": ["Men"] * 200, ORIGIN: "dataset"})
    new = pd.DataFrame({"gender": ["Women"] * 200, ORIGIN: "drop"})
    rule = next(rule for rule in drift.rules(Limits()) if rule.name == "drift_gender")
    suite = Suite("test", [])
    (outcome,) = suite.run_drift([rule], pd.concat([new, old], ignore_index=True))
    assert not outcome["passed"]
    suite.write_docs(tmp_path)
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert "`gender` of the drop lies further than 0.2 from that of the last dataset" in page
    assert "drift_gender (warning)" in page
