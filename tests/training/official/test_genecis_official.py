"""GeneCIS: grown boxes, pictures of both archives, ranks among a query's own candidates, and the official tie rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.params import UserError
from tests.training.official.audit_exams import ConstantExam, RandomExam
from tests.training.official.fixture_genecis import write
from training.benchmarks import genecis
from training.official import pictures
from training.official.contract import Picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path / "genecis"


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([200, 300, 100, 50], [130, 265, 300, 350]),  # right and bottom are the box's own
        ([10, 20, 100, 50], [0, 0, 170, 85]),  # the photo's edge stops the left and top: the others grow
    ],
)
def test_boxes_grow_to_the_left_and_top(box: list[float], expected: list[float]) -> None:
    assert genecis.grown(box) == pytest.approx(expected)


def test_a_cut_is_padded_to_a_black_square(folder: Path) -> None:
    found = pictures.load(Picture("vg/VG_100K/0.jpg", (2.0, 3.0, 8.0, 40.0), square=True), folder.parent)
    assert found.size == (9, 9)  # 6 wide, and the photo ends at 12
    assert np.asarray(found)[:, 0].sum() == 0


def test_pictures_lie_in_either_archive_and_objects_are_whole(folder: Path) -> None:
    rows = genecis.load(folder).to_pylist()
    attributes = [row for row in rows if row["task"].endswith("attribute")]
    assert {row["reference"]["path"].split("/")[1] for row in attributes} == {"VG_100K", "VG_100K_2"}
    assert {len(row["candidates"]) for row in attributes} == {10}
    objects = [row for row in rows if row["task"].endswith("object")]
    assert {len(row["candidates"]) for row in objects} == {15}
    assert {picture["box"] is None for row in objects for picture in row["candidates"]} == {True}
    for row in rows:
        for picture in (row["reference"], *row["candidates"]):
            assert (folder.parent / picture["path"]).is_file()


def test_ranks_are_those_of_a_plain_sort_and_tasks_count_once(folder: Path) -> None:
    items, exam = genecis.load(folder), RandomExam(8)
    found, hits = genecis.metrics(genecis.score(items, exam)), {task: [] for task in genecis.TASKS}
    for row in items.to_pylist():
        reference, *shown = (
            Picture(picture["path"], tuple(picture["box"]), square=True) if picture["box"] else Picture(picture["path"])
            for picture in (row["reference"], *row["candidates"])
        )
        scores = exam.images(shown) @ exam.compose([reference], [row["condition"]])[0]
        hits[row["task"]].append(int(np.argsort(-scores).tolist().index(0)) < 2)
    shares = {task: 100 * np.mean(found) for task, found in hits.items()}
    for task, expected in shares.items():
        assert found[f"R@2 ({task})"] == found[f"R@2 ({task}) (official)"] == pytest.approx(expected)
    assert found["R@2 (task mean)"] == pytest.approx(np.mean(list(shares.values())))


def test_a_tie_is_no_success_but_for_the_official_rule(folder: Path) -> None:
    found = genecis.metrics(genecis.score(genecis.load(folder), ConstantExam()))
    assert found["R@3 (task mean)"] == found["image_only_R@3 (focus_object)"] == 0
    assert found["R@1 (task mean) (official)"] == found["text_only_R@1 (change_attribute) (official)"] == 100


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("focus_object", {"gallery": [{"val_image_id": 1}] * 13}, "entry 1: field `gallery` has 13 pictures"),
        ("focus_object", {"target": {"image_id": 1}}, "entry 1: field `val_image_id` is missing"),
        ("change_attribute", {"reference": {"image_id": 1, "instance_bbox": [1, 2, 0, 4]}}, "entry 1: field `instance"),
        ("change_attribute", {"condition": 3}, "entry 1: field `condition` is int"),
    ],
)
def test_a_bad_entry_is_named(folder: Path, task: str, change: dict[str, object], message: str) -> None:
    path = folder / f"{task}.json"
    entries = json.loads(path.read_text())
    entries[1] |= change
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        genecis.load(folder)
