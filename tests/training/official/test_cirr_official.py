"""CIRR: the official files load whole, planned ranks give the planned recalls, and the server gets what it asks for."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from data.params import UserError
from tests.training.official import fixture_cirr
from tests.training.official.audit_exams import RandomExam
from tests.training.official.planned_exam import Planned, miss, plan
from tests.training.official.shared_files import official
from training.benchmarks import cirr
from training.official import composed, files

RANKS = (1, 2, 6, 11, 0)  # planned in turn; 0 is a miss


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fixture_cirr.write(tmp_path)
    fixture_cirr.test1(tmp_path)
    return tmp_path / "cirr"


def test_the_official_files_load_whole() -> None:
    home = official("cirr")
    files.check(cirr.BENCHMARK, home)
    items = cirr.load(home)
    paths = composed.galleries(items)["cirr"]
    assert (items.num_rows, len(paths)) == (4181, 2297)
    assert len(set(items["group"].to_pylist())) == 503
    assert items["reference"][0].as_py() == "dev-244-0-img0"
    assert paths["dev-244-0-img0"] == "cirr/dev/dev-244-0-img0.png"
    assert {len(others) for others in items["others"].to_pylist()} == {4}


def test_planned_ranks_on_the_official_files_give_the_planned_recalls() -> None:
    """The reference is nearest of all, and every second query has photos of its own set before the target."""
    items = cirr.load(official("cirr"))
    paths = composed.galleries(items)["cirr"]
    asked = defaultdict(list)  # six queries are asked twice, with different targets
    for row in items.to_pylist():
        asked[row["reference"], row["caption"]].append(row)
    plans, ranks, ranks_s = {}, [], []
    for number, ((reference, caption), rows) in enumerate(asked.items()):
        rank = RANKS[number % len(RANKS)] if len(rows) == 1 else 0
        members = {reference, rows[0]["target"], *rows[0]["others"]}
        strangers = [name for name in list(paths)[:20] if name not in members]
        before = [*(rows[0]["others"][:2] if number % 2 else []), *strangers][: max(rank - 1, 0)]
        targets = [paths[row["target"]] for row in rows]
        wished = plan(targets[0], [paths[name] for name in before], paths[reference]) if rank else miss(*targets)
        plans[paths[reference], caption] = wished
        ranks += [rank or 10**6] * len(rows)
        ranks_s += [1 + len(members.intersection(before)) if rank else 5 - (len(rows) - 1)] * len(rows)
    found = cirr.metrics(cirr.score(items, Planned(plans)))
    assert len(ranks) == 4181
    for k in (1, 5, 10, 50):
        assert found[f"R@{k}"] == pytest.approx(100 * np.mean(np.array(ranks) <= k))
    for k in (1, 2, 3):
        assert found[f"R_s@{k}"] == pytest.approx(100 * np.mean(np.array(ranks_s) <= k))
    assert found["(R@5 + R_s@1)/2"] == pytest.approx((found["R@5"] + found["R_s@1"]) / 2)


def test_the_reference_is_left_out_and_the_set_ranked_apart(folder: Path) -> None:
    """The reference nearest, then x of the set, then the target: rank 2 of all, rank 2 of the set."""
    items = cirr.load(folder).slice(0, 2)
    paths = composed.galleries(items)["cirr"]
    first, second = items.to_pylist()
    x, stranger = first["others"][0], "dev-7-1-img0"
    plans = {
        (paths[first["reference"]], first["caption"]): plan(
            paths[first["target"]], [paths[x]], paths[first["reference"]]
        ),
        (paths[second["reference"]], second["caption"]): plan(
            paths[second["target"]], [paths[stranger]], paths[second["reference"]]
        ),
    }
    outcomes = cirr.score(items, Planned(plans)).to_pylist()
    detail = {(row["metric"], row["item_id"]): row["detail"] for row in outcomes}
    assert (detail["R@1", first["item_id"]], detail["R_s@1", first["item_id"]]) == (2, 2)
    assert (detail["R@1", second["item_id"]], detail["R_s@1", second["item_id"]]) == (2, 1)


def test_the_nearest_after_the_reference_is_a_success_at_1(folder: Path) -> None:
    items = cirr.load(folder).slice(0, 1)
    paths, row = composed.galleries(items)["cirr"], items.to_pylist()[0]
    wished = plan(paths[row["target"]], hidden=paths[row["reference"]])
    found = cirr.metrics(cirr.score(items, Planned({(paths[row["reference"]], row["caption"]): wished})))
    assert (found["R@1"], found["R_s@1"]) == (100, 100)


def test_the_server_gets_fifty_names_and_three_without_the_reference(folder: Path) -> None:
    sent = cirr.submit(folder, RandomExam(5))
    assert set(sent) == {"cirr_test1_recall.json", "cirr_test1_recall_subset.json"}
    entries = json.loads((folder / "captions/cap.rc2.test1.json").read_text())
    for file, metric, count in (
        ("cirr_test1_recall.json", "recall", 50), ("cirr_test1_recall_subset.json", "recall_subset", 3)
    ):  # fmt: skip
        content = json.loads(json.dumps(sent[file]))
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        assert list(content) == [str(entry["pairid"]) for entry in entries]
        for entry in entries:
            names = content[str(entry["pairid"])]
            assert len(set(names)) == len(names) == count
            assert entry["reference"] not in names
            if metric == "recall_subset":
                assert set(names) < set(entry["img_set"]["members"])


def test_the_server_gets_the_nearest_first(folder: Path) -> None:
    entries = json.loads((folder / "captions/cap.rc2.test1.json").read_text())
    plans = {}
    for entry in entries:
        members = [f"cirr/test1/{name}.png" for name in entry["img_set"]["members"] if name != entry["reference"]]
        reference = f"cirr/test1/{entry['reference']}.png"
        plans[reference, entry["caption"]] = plan(members[4], [members[3], members[0]], reference)
    sent = cirr.submit(folder, Planned(plans))
    for entry in entries:
        members = [name for name in entry["img_set"]["members"] if name != entry["reference"]]
        expected = [members[3], members[0], members[4]]
        assert sent["cirr_test1_recall.json"][str(entry["pairid"])][:3] == expected
        assert sent["cirr_test1_recall_subset.json"][str(entry["pairid"])] == expected


def test_the_withheld_split_of_the_official_files_can_be_sent() -> None:
    home = official("cirr")
    sent = cirr.submit(home, RandomExam(0))
    assert {len(content) for content in sent.values()} == {4148 + 2}
    assert all(len(json.dumps(content)) < 5_000_000 for content in sent.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_hard": "nowhere"}, "entry 0: field `target_hard` names picture nowhere"),
        ({"img_set": {"id": 1, "members": ["dev-0-0-img0"] * 6}}, "does not list 6 photos with reference and target"),
        ({"pairid": 1}, "lists 1 twice"),
        ({"caption": None}, "entry 0: field `caption` is NoneType"),
    ],
)
def test_a_bad_entry_is_named(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "captions/cap.rc2.val.json"
    entries = json.loads(path.read_text())
    entries[0] |= change
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        cirr.load(folder)
