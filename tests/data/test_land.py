"""Landing in a real DVC repository: what is stored, what is quarantined, and that refusals and kills lose nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from small_drops import ROOT, Built, build, jpeg, tree

from data import dvc, record, schema
from data.land import Landing, land, main
from data.params import UserError

DROPS = Path("store/drops")


def mixed() -> Built:
    """Twelve rows of which four cannot be used: no image, no gender (and no year), and one id twice."""
    built = build()
    del built.images["00008.jpg"]
    built.rows[2] |= {"gender": "", "year": "soon"}
    built.rows[5]["id"] = built.rows[4]["id"]
    built.rows[6] |= {"productDisplayName": "NA", "usage": "", "baseColour": "NA"}
    return built


@pytest.fixture(scope="module")
def landing(fresh_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Landing:
    """`mixed()`, landed."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(fresh_repository, folder / "repository")
    with contextlib.chdir(folder / "repository"):
        (landing,) = land([mixed().write(folder / "drop")])
        return dataclasses.replace(landing, folder=landing.folder.resolve())


def test_accepted_rows_are_stored_whole(landing: Landing) -> None:
    built = mixed()
    table = pq.read_table(landing.folder / "products.parquet")
    assert table.schema.equals(schema.products_schema())
    rows = table.to_pylist()
    kept = [row for i, row in enumerate(built.rows) if i not in (1, 2, 4, 5)]
    assert [row["id"] for row in rows] == [row["id"] for row in kept]
    assert [row["image"] for row in rows] == [built.images[row["image"]] for row in kept]
    assert [row["row"] for row in rows] == [2, 5, 8, 9, 10, 11, 12, 13]
    assert {(row["width"], row["height"], row["mode"], row["year"]) for row in rows} == {(60, 80, "RGB", 2011)}
    assert {row["drop_id"] for row in rows} == {landing.drop_id}
    untitled = rows[2]
    assert (untitled["title"], untitled["usage"], untitled["base_colour"]) == (None, None, None)
    assert untitled["derived_caption"] == "tshirts for men"


def test_refused_rows_are_kept_with_their_reasons(landing: Landing) -> None:
    rows = pq.read_table(landing.folder / "quarantine.parquet").to_pylist()
    assert [(row["row"], row["reasons"]) for row in rows] == [
        (3, ["image_present"]), (4, ["gender_filled", "year_is_year"]), (6, ["id_unique"]), (7, ["id_unique"]),
    ]  # fmt: skip
    assert rows[0]["image"] is None
    assert rows[1]["image"] == build().images["00009.jpg"]
    assert rows[1]["year"] == "soon"
    assert rows[1]["messages"] == [
        "drop/catalog.csv line 4: `gender` (who it is made for) is empty.",
        "drop/catalog.csv line 4: `year` is not a year such as 2016. (soon)",
    ]


def test_the_report_and_the_record_agree(landing: Landing) -> None:
    report = json.loads((landing.folder / "report.json").read_text(encoding="utf-8"))
    assert report == landing.report
    assert (report["name"], report["rows"], report["accepted"], report["quarantined"]) == ("drop", 12, 8, 4)
    assert report["quarantined_by_rule"] == {"image_present": 1, "id_unique": 2, "gender_filled": 1, "year_is_year": 1}
    assert report["warnings_by_rule"] == {"title_not_na": 1, "base_colour_not_na": 1, "usage_filled": 1}
    made = record.verify(landing.folder)
    assert (made.id, made.kind, made.stage) == (landing.record_id, "drop", "land")
    assert made.summary["accepted"] == 8
    checks = {check["name"]: check for check in made.checks}
    assert [rule["name"] for rule in report["rules"]] == list(checks)
    assert checks["id_unique"] == {
        "name": "id_unique", "passed": False, "severity": "critical", "count": 2, "examples": ["00011", "00011"],
        "description": "The drop has the id more than once, and nothing says which row is right.",
        "metadata": {"groups": 1},
    }  # fmt: skip
    assert checks["image_decodes"]["passed"]
    assert (landing.folder / made.summary["docs"]).is_file()


def test_dvc_holds_what_landed(repository: Path, tmp_path: Path) -> None:
    (landing,) = land([build().write(tmp_path / "drop")])
    before = tree(DROPS)
    shutil.rmtree(DROPS)
    dvc.call("checkout")
    assert tree(DROPS) == before
    assert record.verify(landing.folder).id == landing.record_id
    assert "drops" in yaml.safe_load(Path("store/drops.dvc").read_text())["outs"][0]["path"]


def test_the_same_files_land_once(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build().write(tmp_path / "drop")
    (first,) = land([folder])
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    before = tree(Path())
    capsys.readouterr()
    (again,) = land([tmp_path / "copy"])
    assert (first.new, again.new, again.record_id) == (True, False, first.record_id)
    assert tree(Path("store")) == {k.removeprefix("store/"): v for k, v in before.items() if k.startswith("store/")}
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said == [
        f"[land] {tmp_path / 'copy'}: already landed as {first.drop_id}; the files are the same. Nothing to do."
    ]


def test_force_and_new_rules_land_again(repository: Path, tmp_path: Path) -> None:
    folder = build().write(tmp_path / "drop")
    (first,) = land([folder])
    (forced,) = land([folder], force=True)
    assert (forced.new, forced.record_id) == (True, first.record_id)
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("max_title: 300", "max_title: 20"))
    (stricter,) = land([folder])
    assert stricter.new
    assert stricter.report["warnings_by_rule"] == {"title_length": 12}


def test_a_damaged_landing_is_mended(repository: Path, tmp_path: Path) -> None:
    folder = build().write(tmp_path / "drop")
    (first,) = land([folder])
    (first.folder / "report.json").unlink()
    (again,) = land([folder])
    assert (again.new, again.record_id) == (True, first.record_id)


def test_drops_that_dvc_knows_are_never_forgotten(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the data is not there, `dvc add` would replace the list of drops by the one that lands."""
    (first,) = land([build().write(tmp_path / "drop")])
    other = build(3, first=50).write(tmp_path / "other")
    shutil.copytree(repository, tmp_path / "clone", ignore=shutil.ignore_patterns("cache", "drops", "tmp"))
    shutil.rmtree(DROPS)
    with pytest.raises(UserError, match=rf"{first.drop_id} missing, .*dvc pull"):
        land([other])
    monkeypatch.chdir(tmp_path / "clone")
    tracked = Path("store/drops.dvc").read_bytes()
    with pytest.raises(UserError, match=r"drops\.dvc: the drops that it lists are not here.*dvc pull"):
        land([other])
    assert Path("store/drops.dvc").read_bytes() == tracked
    Path("store/drops.dvc").unlink()
    assert land([other])[0].new


def bomb() -> Built:
    built = build()
    built.images["00009.jpg"] = jpeg(size=(400, 300), format="PNG")
    return built


def unusable() -> Built:
    built = build()
    built.images.clear()
    return built


def misdirected() -> Built:
    built = build()
    built.rows[0]["image"] = "../../secret.jpg"
    return built


def narrow() -> Built:
    built = build()
    for row in built.rows:
        del row["articleType"]
    return built


@pytest.mark.parametrize(("make", "words"), [
    (bomb, r"catalog\.csv line 4: .*400 x 300"), (unusable, "every row would be quarantined.*image_present"),
    (misdirected, "leads out of the drop"), (narrow, "`article_type`.*missing"),
])  # fmt: skip
def test_a_refused_drop_leaves_no_trace(repository: Path, tmp_path: Path, make: object, words: str) -> None:
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("max_pixels: 50000000", "max_pixels: 100000"))
    assert callable(make)
    folder = make().write(tmp_path / "drop")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=words):
        land([folder])
    assert tree(tmp_path) == before


def test_drops_before_a_refused_one_stay_landed(repository: Path, tmp_path: Path) -> None:
    good, bad = build().write(tmp_path / "good"), narrow().write(tmp_path / "bad")
    with pytest.raises(UserError, match="bad/catalog"):
        land([good, bad])
    assert len(list(DROPS.iterdir())) == 1
    assert "drops" in Path("store/drops.dvc").read_text()


def test_without_dvc_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = build().write(tmp_path / "drop")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="dvc init"):
        land([folder])
    assert tree(tmp_path) == before


def test_the_command(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(mixed().write(tmp_path / "drop"))]) == 0
    table = capsys.readouterr().out
    for words in ("8  accepted of 12 rows", "4  quarantined", "2    id_unique", "1    title_not_na", "docs/index.html"):
        assert words in table
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: not found; a drop is a folder" in capsys.readouterr().err


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "data.land", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def kill_while_writing(folder: Path) -> None:
    """Start a landing and kill it dead as soon as its half-written output exists."""
    process = start(folder)
    deadline = time.monotonic() + 60
    while not list(DROPS.glob(".*.partial/products.parquet")):
        assert process.poll() is None, "the landing ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_landing_lands_again_as_if_nothing_had_happened(repository: Path, tmp_path: Path) -> None:
    folder = mixed().write(tmp_path / "drop")
    kill_while_writing(folder)
    assert all(left.name.startswith(".") for left in DROPS.iterdir())
    (other,) = land([build(3, first=50).write(tmp_path / "other")])  # clears it away, and DVC never sees it
    assert [left.name for left in DROPS.iterdir()] == [other.drop_id]
    (landing,) = land([folder])
    assert (landing.report["accepted"], landing.report["quarantined"]) == (8, 4)
    (clean,) = land([folder], force=True)
    assert clean.record_id == landing.record_id


def test_a_landing_killed_between_its_renames_is_recovered(repository: Path, tmp_path: Path) -> None:
    """The moment at which the old output is moved aside and the new one is not yet in place."""
    folder = build().write(tmp_path / "drop")
    (first,) = land([folder])
    shutil.copytree(first.folder, DROPS / f".{first.drop_id}.partial")
    first.folder.rename(DROPS / f".{first.drop_id}.old")
    land([build(3, first=50).write(tmp_path / "other")])
    assert record.verify(first.folder).id == first.record_id
    assert len(list(DROPS.iterdir())) == 2


def test_two_landings_at_once_both_land(repository: Path, tmp_path: Path) -> None:
    folders = [build(3, first=100 * n).write(tmp_path / f"drop{n}") for n in (1, 2)]
    process = start(folders[0])
    land([folders[1]])
    assert process.wait(120) == 0
    assert [land([folder])[0].new for folder in folders] == [False, False]
    assert dvc.call("status", "store/drops.dvc").strip() == "Data and pipelines are up to date."
