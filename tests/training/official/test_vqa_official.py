"""VQAv2: the official normalisation and accuracy by hand, ties, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.params import UserError
from tests.training.official import fixture_vqa
from tests.training.official.fixture_vqa import CANDIDATES, VAL, asked, photo
from tests.training.official.known_exam import Known
from training.benchmarks import vqa
from training.outcomes import column


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vqa")
    fixture_vqa.vqa(folder)
    return folder


def exam(likely: Callable[[str, str], dict[str, float]]) -> Known:
    """An exam whose probabilities by (picture, question) are given for some answers."""

    def classes(task: str, pictures: list[Any], texts: list[str], names: list[str]) -> list[list[float]]:
        assert task == "vqa"
        rows = (likely(picture.path, text) for picture, text in zip(pictures, texts, strict=True))
        return [[row.get(name, 0.0) for name in names] for row in rows]

    return Known(classes=classes)


def test_accuracy_by_agreement() -> None:
    """acc = 0, .3, .6, .9, 1 for 0 to 4 agreeing annotators of ten [benchmarks.md §8.2, §10]."""
    for agreeing, expected in enumerate((0.0, 0.3, 0.6, 0.9, 1.0, 1.0)):
        found = vqa.accuracies(["yes"] * agreeing + ["no"] * (10 - agreeing))
        assert found.get("yes", 0.0) == pytest.approx(expected)
    assert vqa.accuracies(["yes"] * 2 + ["no"] * 8) == pytest.approx({"yes": 0.6, "no": 1.0})
    assert vqa.accuracies(["yes"] * 10) == {"yes": 1.0}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"), ("The  Cat", "cat"), ("a dog\nand\ta cat ", "dog and cat"), ("two", "2"), ("None", "0"),
        ("dont", "don't"), ("couldnt've", "couldn't've"), ("somebody'd", "somebodyd"), ("hell", "hell"),
        ("t-shirt", "t shirt"), ("red, white", "red white"), ("1,000", "1000"), ("black/white", "black white"),
        ("u.s.", "us"), ("3.5", "3.5"), ("5.", "5"), ("what?", "what"), ("one's", "one's"), ("", ""),
    ],
)  # fmt: skip
def test_answers_are_normalised(answer: str, expected: str) -> None:
    assert vqa.normalised(answer) == expected


def test_a_mark_next_to_a_blank_vanishes_everywhere() -> None:
    assert vqa.without_punctuation("a-b") == "a b"
    assert vqa.without_punctuation("a-b -c") == "ab c"
    assert vqa.without_punctuation("1,000 a-b") == "1000 ab"  # so does every mark beside a comma between digits


def test_annotators_get_the_punctuation_pass_only_and_only_where_they_differ() -> None:
    assert vqa.accuracies(["t-shirt"] * 10) == {"t-shirt": 1.0}
    assert vqa.accuracies(["t-shirt"] * 9 + ["shirt"]) == pytest.approx({"t shirt": 1.0, "shirt": 0.3})
    assert set(vqa.accuracies(["Two"] * 9 + ["2"])) == {"Two", "2"}  # what they said keeps its number words


def test_items_of_the_official_files(root: Path) -> None:
    items = vqa.load(root / "vqa")
    assert items.num_rows == 3 * len(VAL)
    first = items.slice(0, 1).to_pylist()[0]
    assert first["item_id"] == "1000"
    assert first["group"] == 1
    assert first["picture"] == "coco/val2014/COCO_val2014_000000000001.jpg"
    assert (root / first["picture"]).is_file()
    assert first["answers"] == asked(1)[0][3]
    assert json.loads(items.schema.metadata[b"candidates"]) == CANDIDATES


def test_known_answers_give_the_expected_accuracies(root: Path) -> None:
    """Always "yes": .6 or 1 of the questions about darkness, 0 of the others; each type by itself, plain means."""
    items = vqa.load(root / "vqa")
    outcomes = vqa.score(items, exam(lambda *_: {"yes": 0.9, "no": 0.1}))
    dark = np.mean([1.0 if asked(number)[1][3][0] == "yes" else 0.6 for number in VAL])
    assert vqa.metrics(outcomes) == pytest.approx(
        {"accuracy": 100 * dark / 3, "yes/no": 100 * dark, "number": 0.0, "other": 0.0}
    )
    assert column(outcomes, "detail") == pytest.approx(0.9)


def test_metrics_come_from_the_outcomes_alone_in_any_order(root: Path) -> None:
    items = vqa.load(root / "vqa")
    said = {(row["picture"], row["question"]): row["answers"][0] for row in items.to_pylist()}
    outcomes = vqa.score(items, exam(lambda *asked: {said[asked]: 1.0}))
    found = vqa.metrics(outcomes.take(np.random.default_rng(0).permutation(outcomes.num_rows)))
    assert found == pytest.approx({"accuracy": 100.0, "yes/no": 100.0, "number": 100.0, "other": 100.0})


def test_a_tie_gets_the_least_accuracy(root: Path) -> None:
    items = vqa.load(root / "vqa")
    tied = vqa.metrics(vqa.score(items, exam(lambda *_: {"yes": 0.5, "no": 0.5 - 1e-9})))
    assert tied["yes/no"] == pytest.approx(60.0)  # of "yes" and "no" one has eight voices, the other two
    constant = vqa.metrics(vqa.score(items, exam(lambda *_: dict.fromkeys(CANDIDATES, 0.1))))
    assert set(constant.values()) == {0.0}


def test_the_test_server_gets_an_answer_to_every_question(root: Path) -> None:
    found = vqa.submit(root / "vqa", exam(lambda path, _: {photo(int(path[-6:-4]))[1]: 0.9, "green": 0.1}))
    assert found == {
        "vqa_test2015_results.json": [{"question_id": 10 * n, "answer": photo(n)[1]} for n in fixture_vqa.TEST]
    }
    assert (root / "coco/test2015/COCO_test2015_000000000021.jpg").is_file()


def _without_answers(content: Any) -> None:
    content["annotations"][3]["answers"] = content["annotations"][3]["answers"][:9]


def _other_type(content: Any) -> None:
    content["annotations"][2]["answer_type"] = "maybe"


def _other_photo(content: Any) -> None:
    content["annotations"][1]["image_id"] = 99


def _one_less(content: Any) -> None:
    content["annotations"].pop()


def _twice(content: Any) -> None:
    content["questions"][4]["question_id"] = content["questions"][0]["question_id"]


def _no_field(content: Any) -> None:
    del content["questions"][5]["question"]


@pytest.mark.parametrize(
    ("file", "spoil", "named"),
    [
        (vqa.ANNOTATIONS, _without_answers, "annotation 3: has 9 answers"),
        (vqa.ANNOTATIONS, _other_type, "annotation 2: answer_type `maybe`"),
        (vqa.ANNOTATIONS, _other_photo, "annotation 1: question 1001 of photo 99"),
        (vqa.ANNOTATIONS, _one_less, "23 annotations for 24 questions"),
        (vqa.QUESTIONS, _twice, "question 4: question_id 1000 occurs twice"),
        (vqa.QUESTIONS, _no_field, "question 5: field `question` is missing"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, file: str, spoil: Callable[[Any], None], named: str) -> None:
    fixture_vqa.vqa(tmp_path)
    path = tmp_path / "vqa" / file.format("val")
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=named) as told:
        vqa.load(tmp_path / "vqa")
    assert path.name in str(told.value)


@pytest.mark.parametrize("listed", [[], ["yes", "yes"], {"yes": 1}, ["yes", 3]])
def test_bad_candidates_are_named(tmp_path: Path, listed: Any) -> None:
    fixture_vqa.vqa(tmp_path)
    (tmp_path / "vqa" / vqa.CANDIDATES).write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"answer_list\.json"):
        vqa.load(tmp_path / "vqa")
