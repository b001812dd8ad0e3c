"""The command: scores what is installed, says what is not, and stops at what is missing or broken."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import record
from tests.serving import tiny
from tests.training.official.fixture_aro import coco_order, vg_relation
from tests.training.official.fixture_winoground import files as winoground
from training.official import OFFICIAL, run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a dataset with texts, three installed benchmarks."""
    folder = tmp_path_factory.mktemp("official")
    tiny.write_model(folder / "store/models/base", 0)
    rows = {"title": ["red shirt", "blue bag"], "derived_caption": ["a red shirt", "a bag"], "split": ["train"] * 2}
    (folder / "store/dataset").mkdir(parents=True)
    pq.write_table(pa.table(rows), folder / "store/dataset/products.parquet")
    for write in (winoground, vg_relation, coco_order):
        write(folder / "store/benchmarks")
    return folder


@pytest.fixture(autouse=True)
def _inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("FITTINGROOM_BENCHMARKS", raising=False)


def test_all_that_is_installed_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["base"]) == 0
    said = capsys.readouterr().err
    assert "[valse] not installed" in said
    assert "github.com/Heidelberg-NLP/VALSE" in said
    for name in ("winoground", "vg_relation", "coco_order"):
        folder = Path("store/official/base") / name
        record.verify(folder)
        outcomes = pq.read_table(folder / run.OUTCOMES)
        found = json.loads((folder / run.METRICS).read_text())
        computed = OFFICIAL[name].metrics(outcomes)
        for metric, cell in found["metrics"].items():
            assert cell["value"] == pytest.approx(computed[metric], abs=1e-4)
        headline = found["metrics"][found["headline"]]
        assert headline["low"] <= headline["value"] <= headline["high"]
        assert headline["chance"] == pytest.approx(OFFICIAL[name].chance[found["headline"]], abs=1e-4)
    order = json.loads(Path("store/official/base/coco_order/metrics.json").read_text())
    assert "official" in order["metrics"]["P@1"]
    made = record.read(Path("store/official/base/coco_order"))
    assert "order_options.json" in made.parameters["files"]
    assert record.read(Path("store/official/base/headlines")).pictures == {"Headlines": "headlines.png"}
    assert run.main(["base", "winoground"]) == 0
    assert "up to date" in capsys.readouterr().err


def test_the_list_tells_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(OFFICIAL)
    rows = {line.split()[0]: line for line in lines}
    assert "Winoground" in rows["winoground"]
    assert " yes " in rows["winoground"]
    assert " no " in rows["valse"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["base", "nosuch"], "benchmark `nosuch` is unknown"),
        (["base", "valse"], "VALSE is not installed"),
        (["base", "--folder", "nowhere"], "no official benchmark is installed there"),
        (["base", "winoground", "--submit"], "has no test server"),
        ([], "name a model"),
        (["nomodel", "winoground"], "nomodel"),
    ],
)
def test_mistakes_are_one_error(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_missing_picture_stops_its_benchmark_only(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = place / "store/benchmarks/aro/images/2300003.jpg"
    picture.rename(picture.with_suffix(".away"))
    try:
        assert run.main(["base", "vg_relation", "winoground", "--force"]) == 2
    finally:
        picture.with_suffix(".away").rename(picture)
    said = capsys.readouterr().err
    assert "2300003.jpg: picture not found (1 of 6 picture files are missing" in said
    assert "It needs: aro/images" in said
    assert "[official@base/winoground] done" in said
    record.verify(Path("store/official/base/vg_relation"))  # what was there stays


def test_a_model_without_a_head_is_not_scored(place: Path) -> None:
    from training.official.exam import CannotSit, ModelExam

    exam = ModelExam(place / "store/models/base", place / "store/benchmarks")
    for name, benchmark in OFFICIAL.items():
        if benchmark.asks in ("head", "vqa", "grounding"):
            with pytest.raises(CannotSit, match="base"):
                exam.demand(benchmark)
        else:
            exam.demand(OFFICIAL[name])
