"""What moved between two versions: the statistics, chance, real drops, overlapping versions, revisions, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from catalogs import ROOT, jpeg, product, starter_rows
from PIL import Image

from data import diff as module
from data import dvc, record
from data.dataset import IMAGE_SCHEMA
from data.dataset_rows import TEXT_COLUMNS, as_frame, to_table
from data.diff import diff, load
from data.diff_pages import _cell
from data.diff_shifts import Sides, _distance, _holm, _log_odds, many_hot, one_hot, shifts, words
from data.params import UserError

Row = Mapping[str, Any]
Page = dict[str, Any]


def write(folder: Path, rows: Iterable[Row], pictures: Mapping[str, bytes] | None = None) -> str:
    """A dataset of the given rows; without `pictures` every product shows the same one. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{"family": 0, **row} for row in rows])
    pq.write_table(to_table(as_frame(table)), folder / "products.parquet")
    shown = {row: jpeg(1) for row in dict.fromkeys(table["image_key"].to_pylist())} if pictures is None else pictures
    images = [{"image_key": key, "jpeg": data, "width": 12, "height": 16} for key, data in shown.items()]
    pq.write_table(pa.Table.from_pylist(images, schema=IMAGE_SCHEMA), folder / "images.parquet")
    return str(folder)


@pytest.fixture
def compare(tmp_path: Path) -> Callable[[Iterable[Row], Iterable[Row]], Page]:
    def run(a: Iterable[Row], b: Iterable[Row]) -> Page:
        diff(write(tmp_path / "a", a), write(tmp_path / "b", b), tmp_path / "out")
        page: Page = json.loads((tmp_path / "out/diff.json").read_text(encoding="utf-8"))
        return page

    return run


def moved(page: Page) -> list[str]:
    return [row["feature"] for row in page["shifts"] if row["moved"]]


# --- statistics -------------------------------------------------------------------------------------------------------


def test_distance_by_hand() -> None:
    assert _distance(np.array([1.0, 1.0]), np.array([1.0, 3.0])) == 0.25
    assert _distance(np.array([2.0, 0.0]), np.array([0.0, 5.0])) == 1.0
    assert _distance(np.array([0.0]), np.array([3.0])) == 1.0
    assert _distance(np.array([0.0]), np.array([0.0])) == 0.0


def test_log_odds_by_hand() -> None:
    """Counts (3, 1) and (1, 3): each word has half of the prior's 500, so log(253 / 251) - log(251 / 253)."""
    z = 2 * np.log(253 / 251) / np.sqrt(1 / 253 + 1 / 251)
    assert np.allclose(_log_odds(np.array([3.0, 1.0]), np.array([1.0, 3.0])), [-z, z])


def test_holm_by_hand() -> None:
    assert np.allclose(_holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])


def test_deals_keep_the_numbers_and_families_together() -> None:
    family = np.repeat(np.arange(10), 3)
    in_a = np.arange(30) < 18
    sides = Sides(in_a, np.arange(30) >= 12, family)
    for a, b in sides.deals(20, seed=1):
        assert (a.sum(), b.sum(), (a & b).sum()) == (18, 18, 6)
        assert (a | b).all()
        assert all(len(set(a[family == number])) == 1 for number in range(10))


def test_chance_is_seldom_taken_for_a_shift() -> None:
    """Forty pairs of versions that differ by chance only: at level 0.05, at most 6 alarms (P(more) < 1 %)."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(40):
        columns = [rng.integers(0, 6, 200).astype(str).tolist() for _ in range(4)]
        in_a = rng.random(200) < 0.5
        features = [one_hot(str(number), "attribute", column) for number, column in enumerate(columns)]
        found = shifts(features, Sides(in_a, ~in_a, np.arange(200)), draws=199)
        alarms += any(row["moved"] for row in found)
    assert alarms <= 6


def test_a_large_family_is_one_witness() -> None:
    """A hundred shades of one lipstick in the second version: counted as products they would move any feature."""
    values = ["x", "y"] * 100 + ["lipstick"] * 100
    in_a = np.array([n % 4 < 2 for n in range(200)] + [False] * 100)
    alone, together = np.arange(300), np.array([*range(200), *[200] * 100])
    row = shifts([one_hot("what", "attribute", values)], Sides(in_a, ~in_a, alone))[0]
    assert row["moved"]
    assert row["values"][0]["value"] == "lipstick"
    assert not shifts([one_hot("what", "attribute", values)], Sides(in_a, ~in_a, together))[0]["moved"]


def test_words_that_moved_are_found_and_seldom_others() -> None:
    """Twenty pairs: "old" becomes rarer and "new" more frequent; of forty words that do not move, few are named."""
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        in_a = np.arange(600) < 300
        chances = [{"the": 1.0, "old": 0.3 if a else 0.1, "new": 0.1 if a else 0.3} for a in in_a]
        told = [
            {word: 1.0 for word, chance in given.items() if rng.random() < chance} | {f"w{rng.integers(40)}": 1.0}
            for given in chances
        ]
        sides = Sides(in_a, ~in_a, np.arange(600))
        found = {row["word"]: row["z"] for row in words(many_hot("w", "words", told), sides, draws=199)}
        assert found["old"] < 0 < found["new"]
        wrong += len(found) > 2
    assert wrong <= 4  # at level 0.05, P(more) < 1 %


# --- versions ---------------------------------------------------------------------------------------------------------


def test_two_halves_of_a_drop_show_nothing(compare: Callable[..., Page]) -> None:
    rows = starter_rows()
    half = np.random.default_rng(11).random(len(rows)) < 0.5
    page = compare(*([row for row, mine in zip(rows, half, strict=True) if mine == side] for side in (True, False)))
    assert moved(page) == []
    assert page["words"] == []


def test_what_the_second_starter_drop_really_shifts(compare: Callable[..., Page]) -> None:
    page = compare(starter_rows("drop-1"), starter_rows("drop-2"))
    found = {row["feature"]: row for row in page["shifts"]}
    assert page["shifts"][0]["feature"] == "year"
    assert found["year"]["values"][0]["value"] == "2011"
    assert found["gender"]["values"][0]["value"] == "Women"
    assert {"article_type", "season", "base_colour", "usage"} <= set(moved(page))
    assert "catalog" not in moved(page)
    assert {"silver", "women"} <= {word["word"] for word in page["words"] if word["z"] > 0}


def test_a_planted_shift_of_colours_ranks_first_and_alone(compare: Callable[..., Page]) -> None:
    rows = starter_rows()[:4000]
    half = np.random.default_rng(13).random(len(rows)) < 0.5
    old = [row for row, mine in zip(rows, half, strict=True) if mine]
    new = [
        {**row, "base_colour": "Red" if n % 5 == 0 else row["base_colour"]}
        for n, (row, mine) in enumerate(zip(rows, half, strict=True)) if not mine
    ]  # fmt: skip
    page = compare(old, new)
    assert moved(page) == ["base_colour"]
    assert page["shifts"][0]["values"][0] | {"a": 0, "b": 0, "change": 0} == {
        "value": "Red",
        "a": 0,
        "b": 0,
        "change": 0,
    }


def test_versions_that_overlap(compare: Callable[..., Page]) -> None:
    rows = [product(row_id=f"r{n}", id=str(n), title=f"Puma Bolt{n} Shirt", image_key=f"k{n}") for n in range(10)]
    changed = [{**rows[0], "row_id": "new", "title": "Puma Bolt0 Tee"}, {**rows[1], "split": "test"}]
    page = compare(rows, [*changed, *rows[3:], product(row_id="r99", id="99", title="Nike Arc Cap", image_key="k99")])
    assert page["products"] == {"a": 10, "b": 10, "added": 1, "removed": 1, "changed": 1, "other_split": 1}
    assert {name: page["families"][name] for name in ("a", "b", "new", "gone")} == {
        "a": 10,
        "b": 10,
        "new": 1,
        "gone": 1,
    }
    assert {row["family"] for row in page["families"]["moved_most"]} == {"Puma Bolt2 Shirt", "Nike Arc Cap"}


def test_equal_versions_and_missing_values(compare: Callable[..., Page]) -> None:
    empty = dict.fromkeys(("gender", "master_category", "sub_category", "article_type", "base_colour", "usage"))
    rows = [
        {**product(row_id=f"r{n}", id=str(n), image_key=f"k{n}", **empty), "derived_caption": None} for n in range(6)
    ]  # fmt: skip
    page = compare(rows, rows)
    assert moved(page) == []
    assert all(row["distance"] == 0 for row in page["shifts"])


def test_the_page_and_the_picture(compare: Callable[..., Page], tmp_path: Path) -> None:
    a = [product(row_id=f"r{n}", id=str(n), title=f"Cap $x{n}$ |*one*", image_key=f"k{n}") for n in range(60)]
    new = [{"row_id": f"s{n}", "id": f"s{n}", "image_key": f"s{n}", "title": f"Hat {n}"} for n in range(60)]
    compare(a, [row | fresh | {"usage": "$Party$"} for row, fresh in zip(a, new, strict=True)])
    text = (tmp_path / "out/diff.md").read_text(encoding="utf-8")
    assert "**Moved, surest and farthest first: usage.**" in text
    assert r"Cap $x0$ \|\*one\*" in text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) <= 3
    with Image.open(tmp_path / "out/diff.png") as picture:
        assert min(picture.size) > 500
    assert _cell("a\nb|c") == "a b\\|c"


def test_pictures_that_changed(tmp_path: Path) -> None:
    def photo(number: int, level: int) -> bytes:
        import io

        stream = io.BytesIO()
        pixels = np.random.default_rng(number).integers(level, level + 60, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    def version(name: str, level: int) -> str:
        rows = [product(row_id=f"{name}{n}", id=f"{name}{n}", image_key=f"{name}{n}") for n in range(40)]
        return write(tmp_path / name, rows, {f"{name}{n}": photo(n, level) for n in range(40)})

    diff(version("dark", 0), version("light", 190), tmp_path / "out")
    assert moved(json.loads((tmp_path / "out/diff.json").read_text())) == ["picture brightness"]


# --- what was made of a dataset ---------------------------------------------------------------------------------------


def with_negatives(folder: Path, rows: list[Row], edits: Callable[[int], str], bound: float) -> str:
    """A dataset with negatives, one of them for each product, and both their records."""
    made = [{"row_id": row["row_id"], "edit_type": "attribute", "edit": edits(n)} for n, row in enumerate(rows)]
    dataset = Path(write(folder / "dataset", rows))
    (folder / "negatives").mkdir()
    pq.write_table(pa.Table.from_pylist(made), folder / "negatives/negatives.parquet")
    for name, inputs, summary in (("dataset", [], {"products": len(rows)}),
                                  ("negatives", [dataset], {"noise_bound": bound, "worst": "colour"})):  # fmt: skip
        out = folder / name
        plain = record.Record(
            kind=name, stage=name, command=name, parameters={}, seeds={}, summary=summary, checks=[], pictures={},
            tables={}, inputs=[record.describe_input(path) for path in inputs], outputs=record.describe_outputs(out),
        )  # fmt: skip
        (out / record.RECORD).write_text(plain.to_json(), encoding="utf-8")
    return str(dataset)


def test_negatives_and_their_bound_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [product(row_id=f"r{n}", id=str(n), image_key=f"k{n}") for n in range(80)]
    more = [{**row, "row_id": f"s{n}", "id": f"s{n}"} for n, row in enumerate(rows)]
    a = with_negatives(tmp_path / "a", rows, lambda n: "colour" if n % 4 else "gender", 0.02)
    b = with_negatives(tmp_path / "b", more, lambda n: "gender" if n % 4 else "colour", 0.05)
    diff(a, b, tmp_path / "out")
    page = json.loads((tmp_path / "out/diff.json").read_text())
    assert moved(page) == ["negatives by edit"]
    assert {"of": "negatives", "number": "noise_bound", "a": 0.02, "b": 0.05, "change": 0.03} in page["numbers"]
    assert "| negatives | noise_bound | 0.02 | 0.05 | +0.03 |" in (tmp_path / "out/diff.md").read_text()
    path = tmp_path / "b/negatives" / record.RECORD
    path.write_text(path.read_text().replace(record.read(tmp_path / "b/dataset").id, "0" * 64))
    diff(a, b, tmp_path / "out")
    assert moved(json.loads((tmp_path / "out/diff.json").read_text())) == []


# --- revisions, commands and mistakes ---------------------------------------------------------------------------------


def test_a_revision_is_compared_with_the_workspace(repository: Path) -> None:
    source, script = repository / "source", "import shutil; shutil.copytree('source', 'store/dataset')"
    stage = {"cmd": f'{sys.executable} -c "{script}"', "deps": ["source"], "outs": ["store/dataset"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"dataset": stage}}), encoding="utf-8")
    for day in range(2):
        write(source, [product(row_id=f"r{n}", id=str(n), image_key=f"k{n}") for n in range(5 + day)])
        Path("store").mkdir(exist_ok=True)
        dvc.call("repro", "-q")
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run([*git, "add", "dvc.yaml", "dvc.lock"], check=True)
        subprocess.run([*git, "commit", "-qm", f"day {day}"], check=True)
    assert module.main(["HEAD~1", "store/dataset"]) == 0
    page = json.loads(Path("runs/diff/diff.json").read_text())
    assert page["products"] == {"a": 5, "b": 6, "added": 1, "removed": 0, "changed": 0, "other_split": 0}
    with pytest.raises(UserError, match=r"dvc\.lock"):
        load("HEAD~9", repository / "fetched")


@pytest.mark.parametrize("name", ["nowhere", "--output=x", "a b", ""])
def test_neither_a_folder_nor_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        load(name, tmp_path / "fetched")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "good", [product()])
    pq.write_table(pa.table({"row_id": ["r"]}), tmp_path / "products.parquet")
    empty = write(tmp_path / "empty", [product()])
    table = pq.read_table(f"{empty}/products.parquet")
    pq.write_table(table.slice(0, 0), f"{empty}/products.parquet")
    raw = str(ROOT / "data/starter/drop-1")
    for other, said in ((raw, "cannot be read"), (str(tmp_path), "no column"), (empty, "holds no product")):
        assert module.main([good, other, "--out", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


def test_the_operators_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestration import cli

    folder = write(tmp_path / "a", [product()])
    assert cli.main(["diff", folder, folder, "--out", str(tmp_path / "out")]) == 0
    assert "Nothing moved beyond chance" in capsys.readouterr().out
    assert set(TEXT_COLUMNS) <= set(pq.read_schema(f"{folder}/products.parquet").names)
