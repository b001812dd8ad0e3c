"""FashionIQ: the official files load whole, and planned ranks give exactly the planned recalls by both protocols."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.official.audit_exams import RandomExam
from tests.training.official.fixture_fashioniq import name, write
from tests.training.official.planned_exam import Planned, miss, plan
from tests.training.official.shared_files import official
from training.benchmarks import fashioniq
from training.official import composed, files
from training.official.scoring import table

TRIPLETS = {
    "dress": {"train": 5985, "val": 2017, "test": 2024},
    "shirt": {"train": 5988, "val": 2038, "test": 2038},
    "toptee": {"train": 6027, "val": 1961, "test": 2056},
}
LISTED = {
    "dress": {"train": 11452, "val": 3817, "test": 3818},
    "shirt": {"train": 19036, "val": 6346, "test": 6346},
    "toptee": {"train": 16121, "val": 5373, "test": 5374},
}
UNION = {"dress": 2628, "shirt": 3089, "toptee": 2902}
RANKS = (1, 2, 11, 0)  # planned in turn; 0 is a miss


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path / "fashioniq"


def test_the_official_files_load_whole() -> None:
    home = official("fashioniq")
    files.check(fashioniq.BENCHMARK, home)
    items = fashioniq.load(home)
    shown = composed.galleries(items)
    assert items.num_rows == 6016
    assert Counter(items["class"].to_pylist()) == {kind: counts["val"] for kind, counts in TRIPLETS.items()}
    assert {kind: len(shown[f"{kind} original"]) for kind in LISTED} == {kind: n["val"] for kind, n in LISTED.items()}
    assert {kind: len(shown[f"{kind} VAL"]) for kind in UNION} == UNION
    for kind in TRIPLETS:
        for split in ("train", "val", "test"):
            assert len(files.read_json(home, f"captions/cap.{kind}.{split}.json")) == TRIPLETS[kind][split]
            assert len(files.read_json(home, f"image_splits/split.{kind}.{split}.json")) == LISTED[kind][split]


def test_planned_ranks_on_the_official_files_give_the_planned_recalls() -> None:
    items = fashioniq.load(official("fashioniq"))
    shown = composed.galleries(items)
    asked = defaultdict(list)  # a few queries are asked twice, with different targets: no query can find both first
    for row in items.to_pylist():
        asked[row["reference"], frozenset((row["first"], row["second"]))].append(row)
    plans, ranks = {}, defaultdict(list)
    for number, ((reference, _), rows) in enumerate(asked.items()):
        rank, kind = RANKS[number % len(RANKS)] if len(rows) == 1 else 0, rows[0]["class"]
        paths = shown[f"{kind} original"]
        targets = [shown[f"{row['class']} original"][row["target"]] for row in rows]
        union = list(shown[f"{kind} VAL"].values())[:40]
        others = [paths[reference], *(path for path in union if path not in (paths[reference], *targets))]
        wished = plan(targets[0], others[: rank - 1]) if rank else miss(*targets)
        for first, second in {(row["first"], row["second"]) for row in rows}:
            plans[paths[reference], f"{first} and {second}"] = wished
            plans[paths[reference], f"{second} and {first}"] = wished
        for row in rows:
            ranks[row["class"]].append(rank or 10**6)
    found = fashioniq.metrics(fashioniq.score(items, Planned(plans)))
    for protocol in ("original", "VAL"):
        for k in (10, 50):
            share = {kind: 100 * float(np.mean(np.array(ranks[kind]) <= k)) for kind in ranks}
            for kind, expected in share.items():
                assert found[f"{protocol}_R@{k} ({kind})"] == pytest.approx(expected)
            mean = sum(share.values()) / 3
            assert found[f"{protocol}_R@{k} (class mean)"] == pytest.approx(mean)
    assert 45 < found["original_R@10 (class mean)"] < 50 < 70 < found["original_R@50 (class mean)"] < 75


def test_captions_are_stripped_and_both_orders_asked(folder: Path) -> None:
    items = fashioniq.load(folder)
    first = items.slice(0, 1).to_pylist()[0]
    assert (first["first"], first["second"]) == ("is teal number 0", "has a wider collar")
    target = f"fashioniq/images/{first['target']}.jpg"
    reference = f"fashioniq/images/{first['reference']}.jpg"
    one, other = "is teal number 0 and has a wider collar", "has a wider collar and is teal number 0"
    exam = Planned({(reference, one): plan(target), (reference, other): plan(target)})
    found = fashioniq.metrics(fashioniq.score(items.slice(0, 1), exam))
    assert exam.composed == [(reference, one), (reference, other)]
    assert found["original_R@10 (dress)"] == 100


def test_both_queries_are_unit_vectors_before_they_are_averaged() -> None:
    merged = fashioniq.merge(np.array([[3, 4]], np.float32), np.array([[0, 2]], np.float32))
    assert merged[0] == pytest.approx([0.316228, 0.948683], abs=1e-6)


def test_the_reference_stays_and_val_ranks_fewer_photos(folder: Path) -> None:
    items = fashioniq.load(folder)
    paths = composed.galleries(items)["dress original"]
    row = items.slice(0, 1).to_pylist()[0]
    reference, target = paths[row["reference"]], paths[row["target"]]
    outside = [paths[name("dress", number)] for number in (54, 55, 56)]  # listed, but of no query
    wished = plan(target, [reference, *outside])
    texts = f"{row['first']} and {row['second']}", f"{row['second']} and {row['first']}"
    outcomes = fashioniq.score(items.slice(0, 1), Planned({(reference, text): wished for text in texts}))
    detail = dict(zip(outcomes["metric"].to_pylist(), outcomes["detail"].to_pylist(), strict=True))
    assert (detail["original_R@10"], detail["VAL_R@10"]) == (5, 2)


def test_the_photo_alone_finds_itself_first_and_photos_are_padded(folder: Path) -> None:
    seen = set()

    class Seen(RandomExam):
        def images(self, pictures):  # type: ignore[no-untyped-def]
            seen.update(picture.pad for picture in pictures)
            return super().images(pictures)

    outcomes = fashioniq.score(fashioniq.load(folder), Seen(3)).to_pylist()
    assert min(row["detail"] for row in outcomes if row["metric"] == "image_only_VAL_R@10") >= 2
    assert seen == {1.25}


def test_classes_count_once_however_many_queries_they_have() -> None:
    """dress 10/20, shirt 20/40, toptee 30/60: 20, 40 and Avg 30."""
    tables = []
    for kind, count, at_10, at_50 in (("dress", 10, 1, 2), ("shirt", 20, 4, 8), ("toptee", 50, 15, 30)):
        items = pa.table({"item_id": [f"{kind}:{n}" for n in range(count)], "group": [0] * count})
        for metric, hits in (("original_R@10", at_10), ("original_R@50", at_50)):
            outcome = np.arange(count) < hits
            tables.append(table("fashioniq", metric, items, outcome, np.zeros(count), [kind] * count))
    found = fashioniq.metrics(pa.concat_tables(tables))
    assert found["original_R@10 (class mean)"] == pytest.approx(20)
    assert found["original_R@50 (class mean)"] == pytest.approx(40)
    assert found["original_Avg (class mean)"] == pytest.approx(30)
    assert found["original_R@10 (toptee)"] == pytest.approx(30)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("captions/cap.shirt.val.json", {"target": "nowhere"}, "entry 0: field `target` names picture nowhere"),
        ("captions/cap.shirt.val.json", {"captions": ["one"]}, "entry 0: field `captions` is not two texts"),
        ("captions/cap.dress.val.json", {"candidate": 7}, "entry 0: field `candidate` is int"),
    ],
)
def test_a_bad_entry_is_named(folder: Path, file: str, change: dict[str, object], message: str) -> None:
    entries = json.loads((folder / file).read_text())
    entries[0] |= change
    (folder / file).write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        fashioniq.load(folder)


def test_a_photo_that_is_listed_twice_is_named(folder: Path) -> None:
    path = folder / "image_splits/split.toptee.val.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps([*listed, listed[3]]))
    with pytest.raises(UserError, match=f"split.toptee.val.json: lists {listed[3]} twice"):
        fashioniq.load(folder)
