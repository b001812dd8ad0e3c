"""RefCOCO+: boxes by maps, IoU and the rule for ties by hand, and its files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.official import fixture_refcoco
from tests.training.official.fixture_refcoco import SPLITS, photo
from tests.training.official.known_exam import Known
from training.benchmarks import refcoco
from training.benchmarks.refcoco import box_scores, iou
from training.official.contract import Picture
from training.outcomes import column


class Pointing(Known):
    """An exam whose maps are a function of picture and text."""

    def __init__(self, point: Callable[[str, str], Any]) -> None:
        super().__init__()
        self.point = point

    def maps(self, pictures: Sequence[Picture], texts: Sequence[str]) -> np.ndarray:
        found = [self.point(picture.path, text) for picture, text in zip(pictures, texts, strict=True)]
        return np.array(found, np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refcoco")
    fixture_refcoco.refcoco(folder)
    return folder


def towards(path: str, text: str) -> np.ndarray:
    """A map that is 1 on the square of the colour that the text names."""
    squares = dict(photo(int(Path(path).stem.rpartition("_")[2]))[1])
    left, top, _, _ = squares[text.split()[1]]
    made = np.zeros((4, 4))
    made[top // 16 : top // 16 + 2, left // 16 : left // 16 + 2] = 1
    return made


def test_overlap_by_hand() -> None:
    assert iou([0, 0, 10, 10], [0, 0, 10, 5]) == 0.5
    assert iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert iou([0, 0, 10, 10], [10, 10, 5, 5]) == 0.0
    assert iou([0, 0, 10, 10], [9, 0, 10, 10]) == 0.0  # one pixel of overlap is none in the official code


def test_a_box_scores_its_sum_over_the_root_of_its_area() -> None:
    """A map of one value stays what it is under bicubic interpolation: sum / √area is √area."""
    boxes = [[0, 0, 4, 4], [2, 2, 2, 8], [0.7, 0.7, 5.5, 2.5]]
    found = box_scores(np.full((2, 2), 7.0, np.float32), (10, 12), boxes)
    assert found == pytest.approx([4.0, 4.0, 6 * 3 / (5.5 * 2.5) ** 0.5])  # pixels 0 to 5, 0 to 2 of the last box
    assert (box_scores(np.zeros((2, 2), np.float32), (10, 12), boxes) == 0).all()


def test_the_scale_of_a_map_does_not_matter() -> None:
    """Gradients may be tiny: a map of 10⁻⁹ chooses as one of 1, and is no tie."""
    grid = np.random.default_rng(0).random((6, 6)).astype(np.float32)
    boxes = [[0, 0, 20, 20], [10, 10, 30, 30], [5, 20, 20, 15]]
    assert box_scores(grid * np.float32(1e-9), (48, 48), boxes) == pytest.approx(box_scores(grid, (48, 48), boxes))


def test_items_of_the_official_files(root: Path) -> None:
    items = refcoco.load(root / "refcoco")
    assert items.num_rows == 2 * (len(SPLITS["val"]) + len(SPLITS["testA"]) + len(SPLITS["testB"]))
    assert set(items["split"].to_pylist()) == {"val", "testA", "testB"}
    first = items.slice(0, 1).to_pylist()[0]
    assert (first["item_id"], first["group"], first["width"]) == ("10:0", 1, 64)
    assert (root / first["picture"]).is_file()
    assert first["text"] == f"the {photo(1)[1][0][0]} one"
    assert first["target"] == photo(1)[1][0][1]
    assert len(first["boxes"]) == 2
    pictures, texts = refcoco.training_pairs(root / "refcoco")
    assert len(pictures) == len(texts) == 2 * len(SPLITS["train"])
    assert (root / pictures[0].path).is_file()


def test_expressions_of_one_reference_have_names_of_their_own(tmp_path: Path) -> None:
    fixture_refcoco.refcoco(tmp_path)
    path = tmp_path / "refcoco/refcoco+_val.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps([*listed, {**listed[0], "text": "another word for it"}]))
    names = refcoco.load(tmp_path / "refcoco")["item_id"].to_pylist()
    assert "10:1" in names
    assert len(set(names)) == len(names)


def test_known_maps_give_the_expected_shares(root: Path) -> None:
    """Right in val and testA, and at the other square in testB."""
    items = refcoco.load(root / "refcoco")
    wrong = {row["picture"] for row in items.to_pylist() if row["split"] == "testB"}
    exam = Pointing(lambda path, text: 1 - towards(path, text) if path in wrong else towards(path, text))
    outcomes = refcoco.score(items, exam)
    assert refcoco.metrics(outcomes) == {
        "val": 100.0, "testA": 100.0, "testB": 0.0, "val (official)": 100.0, "testA (official)": 100.0,
        "testB (official)": 0.0,
    }  # fmt: skip
    assert (column(outcomes, "detail") > 1).all()


def one_by_one(boxes: list[list[float]], grids: list[Any], target: list[float]) -> pa.Table:
    """Outcomes of items that differ in their maps alone: a photo of 40x40 pixels, a grid of 2x2."""
    items = pa.Table.from_pylist([
        {"item_id": str(i), "group": i, "picture": str(i), "text": "", "split": "val", "width": 40, "height": 40,
         "target": target, "boxes": boxes}
        for i in range(len(grids))
    ])  # fmt: skip
    return refcoco.score(items, Pointing(lambda path, _: grids[int(path)]))


def test_a_tie_is_no_success_and_nothing_is_left_over_from_the_sample_before() -> None:
    """The second map is equal on both boxes, the third is 0, the fourth below 0 all over."""
    left, right = [0, 0, 20, 40], [20, 0, 20, 40]
    grids = [[[1, 0], [1, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]], [[-1, -1], [-1, -1]], [[0, 1], [0, 1]]]
    outcomes = one_by_one([left, right], grids, left)
    found = column(outcomes, "outcome").tolist()
    assert found[:5] == [1, 0, 0, 0, 0]
    assert found[5:] == [1, 1, 1, 1, 0]  # official: the first of equals, then what the sample before had
    assert one_by_one([left, right], grids[2:3], left)["outcome"].to_pylist() == [0, 0]  # there was none before
    assert one_by_one([left], grids[2:3], left)["outcome"].to_pylist() == [0, 0]  # and the only box is not found


def test_a_constant_map_takes_the_largest_box() -> None:
    """So a model that points everywhere is right where the object is the largest thing found."""
    large, small = [0, 0, 30, 40], [30, 0, 10, 40]
    assert one_by_one([small, large], [np.ones((2, 2))], large)["outcome"].to_pylist() == [1, 1]
    assert one_by_one([small, large], [np.ones((2, 2))], small)["outcome"].to_pylist() == [0, 0]


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("a pickle ran code",))


def _reference(name: str, value: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda found: [{**found[0], name: value}, *found[1:]]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda found: Runs(), "wants to run"),
        (lambda found: [], "not a list"),
        (lambda found: found[:-3], "ref_id .* is not in"),
        (_reference("ref_id", None), "reference 0: field `ref_id`"),
    ],
)
def test_bad_references_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Any], Any], named: str
) -> None:
    fixture_refcoco.refcoco(tmp_path)
    path = tmp_path / "refcoco" / refcoco.REFERENCES
    path.write_bytes(pickle.dumps(spoil(pickle.loads(path.read_bytes()))))  # noqa: S301  # the fixture's own
    with pytest.raises(UserError, match=named):
        refcoco.load(tmp_path / "refcoco")
    assert "ran code" not in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"refs\(unc\)\.p"):
        refcoco.load(tmp_path / "refcoco")


def _no_boxes(content: Any) -> None:
    content["1"] = []


def _flat(content: Any) -> None:
    content["1"][0] = [3, 3, 0, 5]


def _photo_gone(content: Any) -> None:
    del content["2"]


def _other_photo(content: Any) -> None:
    content[3]["image"] = "train2014/COCO_train2014_000000000099.jpg"


def _no_text(content: Any) -> None:
    del content[2]["text"]


@pytest.mark.parametrize(
    ("file", "spoil", "named"),
    [
        (refcoco.DETECTIONS, _no_boxes, "photo 1: has no list of boxes"),
        (refcoco.DETECTIONS, _flat, "photo 1, box 0: box .* has no area"),
        (refcoco.DETECTIONS, _photo_gone, "image_id 2 is not in refcoco.*dets"),
        ("refcoco+_val.json", _other_photo, "entry 3: `image` is train2014"),
        ("refcoco+_test.json", _no_text, "entry 2: field `text` is missing"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, file: str, spoil: Callable[[Any], None], named: str) -> None:
    fixture_refcoco.refcoco(tmp_path)
    path = tmp_path / "refcoco" / file
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=named):
        refcoco.load(tmp_path / "refcoco")


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    fixture_refcoco.refcoco(tmp_path)
    path = tmp_path / "refcoco" / refcoco.INSTANCES
    content = json.loads(path.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 3]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="ann_id 300 is not in"):
        refcoco.load(tmp_path / "refcoco")
