"""CIRCO: average precision by hand, from planned ranks to metrics, by aspect, and the server's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.params import UserError
from tests.training.official import fixture_circo
from tests.training.official.audit_exams import RandomExam
from tests.training.official.planned_exam import Planned, miss, plan
from training.benchmarks import circo
from training.official import composed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fixture_circo.write(tmp_path)
    fixture_circo.withheld(tmp_path)
    return tmp_path / "circo"


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ((1, 3, 6, 60), 5, 0.4167), ((1, 3, 6, 60), 10, 0.5417), (tuple(range(1, 11)), 5, 1.0),
        ((1, 3, 6), 5, 0.555556), ((1, 3, 6), 10, 0.722222), ((1, 3, 20, 30, 40, 50, 60), 5, 1 / 3), ((7,), 5, 0.0),
    ],
)  # fmt: skip
def test_average_precision_by_hand(ranks: tuple[int, ...], k: int, expected: float) -> None:
    assert circo.average_precision(ranks, k) == pytest.approx(expected, abs=5e-5)


def test_a_photo_found_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="distinct"):
        circo.average_precision([1, 3, 3], 5)


def test_planned_ranks_give_the_planned_precision(folder: Path) -> None:
    """The fourth query has four right photos. They come at ranks 1, 3, 6 and last, its target at rank 6."""
    items = circo.load(folder).slice(3, 1)
    paths, row = composed.galleries(items)["circo"], items.to_pylist()[0]
    target, *others = row["right"]
    free = [key for key in paths if key not in (*row["right"], row["reference"])]
    order = [others[0], free[0], others[1], row["reference"], free[1]]
    wished = plan(paths[target], [paths[key] for key in order]) | miss(paths[others[2]])
    found = circo.metrics(circo.score(items, Planned({(paths[row["reference"]], row["caption"]): wished})))
    assert found["mAP@5"] == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert found["mAP@10"] == found["mAP@50"] == pytest.approx(100 * (1 + 2 / 3 + 1 / 2) / 4)
    assert (found["R@5"], found["R@10"]) == (0, 100)


def test_precision_equals_that_of_a_plain_sort(folder: Path) -> None:
    items, exam = circo.load(folder), RandomExam(4)
    gallery = composed.Gallery(exam, composed.galleries(items)["circo"])
    queries = gallery.queries(items["reference"].to_pylist(), items["caption"].to_pylist())[""]
    expected = []
    for query, right in zip(queries, items["right"].to_pylist(), strict=True):
        order = [gallery.names[place] for place in np.argsort(-(gallery.vectors @ query))][:25]
        relevant = np.array([name in right for name in order])
        precision = relevant.cumsum() / np.arange(1, 26)
        expected.append((precision * relevant).sum() / min(25, len(right)))
    assert circo.metrics(circo.score(items, exam))["mAP@25"] == pytest.approx(100 * np.mean(expected))


def test_aspects_are_means_over_the_queries_that_have_them(folder: Path) -> None:
    items = circo.load(folder)
    outcomes = circo.score(items, RandomExam(6))
    found = circo.metrics(outcomes)
    values = {row["item_id"]: row["outcome"] for row in outcomes.to_pylist() if row["metric"] == "mAP@10"}
    for aspect in fixture_circo.ASPECTS:
        of = [row["item_id"] for row in items.to_pylist() if aspect in row["aspects"]]
        assert 0 < len(of) < items.num_rows
        assert found[f"mAP@10 ({aspect})"] == pytest.approx(100 * np.mean([values[name] for name in of]))


def test_the_server_gets_fifty_ids_per_query(folder: Path) -> None:
    sent = circo.submit(folder, RandomExam(7))
    content = json.loads(json.dumps(sent["circo_test.json"]))
    known = {int(key) for key in composed.galleries(circo.load(folder))["circo"]}
    assert list(content) == ["0", "1", "2"]
    for ids in content.values():
        assert len(set(ids)) == len(ids) == 50
        assert set(ids) <= known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gt_img_ids": [12, 12]}, "entry 0: field `gt_img_ids`: lists 12 twice"),
        ({"gt_img_ids": [15]}, "entry 0: field `gt_img_ids` lacks the target 12"),
        ({"reference_img_id": 1}, "entry 0: field `reference_img_id` names picture 1"),
        ({"id": 1}, "val.json: lists 1 twice"),
    ],
)
def test_a_bad_entry_is_named(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "annotations/val.json"
    entries = json.loads(path.read_text())
    entries[0] |= change
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        circo.load(folder)
