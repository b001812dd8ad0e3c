"""NLVR, NLVR2, SNLI-VE: their files, labels, sentences and ties, by hand; and the real dev part of NLVR."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.official.fixture_statements import FIXTURES, write_nlvr2, write_snli_ve
from training.benchmarks import nlvr, nlvr2, snli_ve
from training.official import files
from training.official.contract import Picture
from training.official.pictures import load
from training.official.statements import labelled

SHARED = Path(os.environ.get("FITTINGROOM_SHARED", Path(__file__).parents[4] / "shared")) / "data/benchmarks"


class Oracle:
    """Knows the label of every item but those in `wrong`, whose classes it turns round; `sure` is its probability."""

    def __init__(self, items: pa.Table, wrong: tuple[str, ...] = (), sure: float = 0.9) -> None:
        rows = zip(*(items[name].to_pylist() for name in ("item_id", "pictures", "text", "label")), strict=True)
        self.known = {(tuple(paths), text): (label, name in wrong) for name, paths, text, label in rows}
        self.sure = sure

    def classes(self, task: str, pictures: list[Any], texts: list[str], names: tuple[str, ...]) -> np.ndarray:
        return self.classes_of_pairs(task, [(picture,) for picture in pictures], texts, names)

    def classes_of_pairs(self, task: str, pictures: list[Any], texts: list[str], names: tuple[str, ...]) -> np.ndarray:
        made = np.full((len(texts), len(names)), (1 - self.sure) / (len(names) - 1), np.float32)
        for row, (shown, text) in enumerate(zip(pictures, texts, strict=True)):
            label, turned = self.known[tuple(picture.path for picture in shown), text]
            place = names.index(label)
            made[row, (place + 1) % len(names) if turned else place] = self.sure
        return made


def pairs(*counts: int) -> pa.Table:
    """Items of NLVR2 with one sentence per count, shown with so many pairs; labels alternate."""
    rows = [
        (f"dev-{number}-{pair}-0", number, [f"{number}-{pair}-l", f"{number}-{pair}-r"], f"sentence {number}",
         ("False", "True")[pair % 2])
        for number, count in enumerate(counts) for pair in range(count)
    ]  # fmt: skip
    return labelled(rows, nlvr2.CLASSES, Path("dev.json"))


def test_consistency_is_over_sentences() -> None:
    """2 sentences, 4 and 2 pairs, one error in the first: accuracy 83.3, consistency 50 [benchmarks.md §10]."""
    items = pairs(4, 2)
    outcomes = nlvr2.score(items, Oracle(items, wrong=("dev-0-2-0",)))  # type: ignore[arg-type]
    found = nlvr2.BENCHMARKS["nlvr2"].metrics(outcomes)
    assert found["dev accuracy"] == pytest.approx(500 / 6)
    assert found["dev consistency"] == pytest.approx(50.0)


def test_a_tie_is_wrong() -> None:
    items = pairs(2, 2)
    found = nlvr2.BENCHMARKS["nlvr2"].metrics(nlvr2.score(items, Oracle(items, sure=0.5)))  # type: ignore[arg-type]
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize(
    ("identifier", "key"), [("dev-850-0-1", "dev-850-1"), ("dev-850-3-1", "dev-850-1"), ("dev-850-0-0", "dev-850-0")]
)
def test_a_sentence_is_its_identifier_without_the_pair(identifier: str, key: str) -> None:
    assert nlvr2.sentence_of(identifier) == key


def test_sentences_of_one_set_are_told_apart() -> None:
    """A set of NLVR2 may have several sentences: one wrong answer breaks its own sentence only."""
    rows = [(f"dev-7-{pair}-{sentence}", 7, [f"{pair}l", f"{pair}r"], f"sentence {sentence}", "True")
            for pair in range(2) for sentence in range(2)]  # fmt: skip
    items = labelled(rows, nlvr2.CLASSES, Path("dev.json"))
    found = nlvr2.BENCHMARKS["nlvr2"].metrics(nlvr2.score(items, Oracle(items, wrong=("dev-7-0-1",))))  # type: ignore[arg-type]
    assert found == {"dev accuracy": 75.0, "dev consistency": 50.0}


def test_the_word_false_is_not_true(tmp_path: Path) -> None:
    """bool("False") is True: labels are compared as words."""
    write_nlvr2(tmp_path, "dev", 12, 3)
    items = nlvr2.load(tmp_path / "nlvr2")
    assert items["label"].to_pylist() == ["True", "False"] * 6
    assert items["pictures"][3].as_py() == [f"nlvr2/images/dev/dev-1-1-img{side}.png" for side in (0, 1)]


def test_splits_of_nlvr2_have_metrics_of_their_own(tmp_path: Path) -> None:
    FIXTURES["nlvr2"](tmp_path)
    items = nlvr2.load(tmp_path / "nlvr2")
    wrong = tuple(name for name in items["item_id"].to_pylist() if name.startswith("test1"))
    found = nlvr2.BENCHMARKS["nlvr2"].metrics(nlvr2.score(items, Oracle(items, wrong)))  # type: ignore[arg-type]
    assert found["dev accuracy"] == found["dev consistency"] == 100
    assert found["test1 accuracy"] == found["test1 consistency"] == 0


def test_training_pictures_lie_in_their_directories(tmp_path: Path) -> None:
    write_nlvr2(tmp_path, "train", 12, 4)
    items = nlvr2.fit_items(tmp_path / "nlvr2")
    assert items is not None
    for paths in items["pictures"].to_pylist():
        assert all(load(Picture(path), tmp_path).size == (8, 8) for path in paths)
    assert nlvr2.fit_items(tmp_path / "elsewhere") is None


def test_snli_ve_never_shows_the_caption(tmp_path: Path) -> None:
    """`sentence1` describes the photograph and would answer without it."""
    FIXTURES["snli_ve"](tmp_path)
    items = snli_ve.load(tmp_path / "snli_ve")
    assert not any("painted" in text for text in items["text"].to_pylist())
    found = snli_ve.BENCHMARKS["snli_ve"].metrics(snli_ve.score(items, Oracle(items)))  # type: ignore[arg-type]
    assert found == {"dev accuracy": 100.0, "test accuracy": 100.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold_label": "-"}, "label `-` is none of"), ({"Flickr30K_ID": "none.jpg"}, "`Flickr30K_ID` none.jpg"),
        ({"sentence2": " "}, "its text is empty"), ({"gold_label": True}, "field `gold_label` is bool"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_named(change: dict[str, object], said: str, tmp_path: Path) -> None:
    write_snli_ve(tmp_path, "dev", 6, 1)
    write_snli_ve(tmp_path, "test", 6, 2)
    path = tmp_path / "snli_ve/snli_ve_dev.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | change) + "\n" + rest)
    with pytest.raises(UserError, match=said) as error:
        snli_ve.load(tmp_path / "snli_ve")
    assert "snli_ve_dev.jsonl" in str(error.value)


def test_an_identifier_of_another_split_is_named(tmp_path: Path) -> None:
    write_nlvr2(tmp_path, "dev", 12, 3)
    shutil.copy(tmp_path / "nlvr2/dev.json", tmp_path / "nlvr2/test1.json")
    with pytest.raises(UserError, match=r"test1\.json: line 1: `identifier` dev-0-0-0 is no test1-set-pair"):
        nlvr2.load(tmp_path / "nlvr2")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: not on this machine (FITTINGROOM_SHARED says where it is)")
def test_the_real_nlvr_loads_whole() -> None:
    """989 pairs of 267 sets [data/README.md]; knowing all answers but one gives exactly the scores that follow."""
    benchmark, folder = nlvr.BENCHMARKS["nlvr"], SHARED / "nlvr"
    assert set(files.check(benchmark, folder)) == {nlvr.DEV, nlvr.DEV_PICTURES}
    items = benchmark.load(folder)
    assert (items.num_rows, len(items["group"].unique())) == (989, 267)
    assert items["label"].to_pylist().count("true") == 547
    for path in items["pictures"].to_pylist()[:20]:
        assert load(Picture(path[0]), SHARED).size == (400, 100)
    found = benchmark.metrics(nlvr.score(items, Oracle(items, wrong=("dev-1572-0",))))  # type: ignore[arg-type]
    assert found["accuracy"] == pytest.approx(100 * 988 / 989)
    assert found["consistency"] == pytest.approx(100 * 266 / 267)
