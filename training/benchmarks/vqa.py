"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837): an open question about a photo, answered out of a fixed list.

Ten people answered each question, and an answer is right as far as they agree with it:
    acc(a) = mean over annotators j of min(1, #{others who gave a} / 3)     0, .3, .6, .9, 1 for 0, 1, 2, 3, 4 of ten
after the official normalisation: of a model's answer its punctuation, number words, articles and contractions; of the
annotators' the punctuation alone, and only where the ten are not all equal.

Pictures `coco/val2014`. Scored is the validation split: the test split's answers are on a server, whose file
`submit` writes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.params import UserError
from training.official import files, scoring
from training.official.contract import Exam, File, Metrics, Official, Picture, Vectors
from training.outcomes import column
from training.ranking import TIE

METRIC = "accuracy"
QUESTIONS = "v2_OpenEnded_mscoco_{}2014_questions.json"
ANNOTATIONS = "v2_mscoco_{}2014_annotations.json"
TEST = "v2_OpenEnded_mscoco_test2015_questions.json"
PICTURE = "coco/{0}/COCO_{0}_{1:012d}.jpg"
CANDIDATES = "answer_list.json"
ANNOTATORS = 10
TYPES = ("yes/no", "number", "other")
BLOCK = 1024  # questions asked at once: each comes back with a probability for every candidate

NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = frozenset({"a", "an", "the"})
MARKS = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
SPELLED = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTIONS.split() for place, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}  # the official table's own slip  # fmt: skip


def load(folder: Path) -> pa.Table:
    """One row per question of the validation split, in the file's order; the candidates are in the schema's metadata.

    Columns: `item_id` the question's number, `group` the photo's, picture, question, question_type, answer_type, and
    answers, the ten as they were given.
    """
    rows = [*entries(folder, "val")]
    return pa.table(
        {name: [row[name] for row in rows] for name in rows[0]},
        schema=pa.schema(
            [
                ("item_id", pa.string()), ("group", pa.int64()), ("picture", pa.string()), ("question", pa.string()),
                ("question_type", pa.string()), ("answer_type", pa.string()), ("answers", pa.list_(pa.string())),
            ],
            metadata={"candidates": json.dumps(candidates(folder))},
        ),
    )  # fmt: skip


def entries(folder: Path, split: str) -> list[dict[str, Any]]:
    """Questions of `train` or `val` with their answers. Raises `UserError` where the two files do not fit together."""
    asked, path = _asked(folder, QUESTIONS.format(split)), folder / ANNOTATIONS.format(split)
    found = [
        _entry(entry, asked, split, f"{path}: annotation {i}")
        for i, entry in enumerate(_listed(folder, ANNOTATIONS.format(split), "annotations"))
    ]
    if len({row["item_id"] for row in found}) != len(found) or len(found) != len(asked):
        raise UserError(
            f"{path}: {len(found)} annotations for {len(asked)} questions, or one of them twice. Take the questions "
            "and the annotations of one release."
        )
    return found


def candidates(folder: Path) -> list[str]:
    """The answers that a model chooses from."""
    path, listed = folder / CANDIDATES, files.read_json(folder, CANDIDATES)
    if not isinstance(listed, list) or not listed or not all(isinstance(answer, str) and answer for answer in listed):
        raise UserError(f"{path}: is not a list of answers. Fetch the official file again.")
    if twice := [answer for answer, count in Counter(listed).items() if count > 1]:
        raise UserError(f"{path}: answer `{twice[0]}` occurs twice. Fetch the official file again.")
    return listed


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """The accuracy of the likeliest candidate; of several that are equally likely, the least accuracy. Detail: its
    probability. The official scorer is handed one answer, and has no rule of its own for ties."""
    listed = json.loads(items.schema.metadata[b"candidates"])
    said = [normalised(answer) for answer in listed]
    outcome, detail = np.zeros(items.num_rows), np.zeros(items.num_rows)
    asked = zip(items["picture"].to_pylist(), items["question"].to_pylist(), strict=True)
    given = zip(_probabilities(exam, list(asked), listed), items["answers"].to_pylist(), strict=True)
    for row, (sure, answers) in enumerate(given):
        right, detail[row] = accuracies(answers), sure.max()
        outcome[row] = min(right.get(said[answer], 0.0) for answer in np.flatnonzero(sure >= sure.max() - TIE))
    return scoring.table(BENCHMARK.name, METRIC, items, outcome, detail, items["answer_type"].to_pylist())


def metrics(outcomes: pa.Table) -> Metrics:
    """Accuracy over all questions (the plain mean), and of each answer type."""
    return {METRIC: scoring.percent(column(outcomes, "outcome")), **scoring.by_slice(outcomes, METRIC)}


def submit(folder: Path, exam: Exam) -> dict[str, Any]:
    """The file that the test server takes: the likeliest candidate for each question of the test split."""
    asked, listed = _asked(folder, TEST), candidates(folder)
    shown = [(PICTURE.format("test2015", photo), question) for photo, question in asked.values()]
    answers = [listed[int(sure.argmax())] for sure in _probabilities(exam, shown, listed)]
    return {
        "vqa_test2015_results.json": [
            {"question_id": number, "answer": answer} for number, answer in zip(asked, answers, strict=True)
        ]
    }


def accuracies(answers: Sequence[str]) -> dict[str, float]:
    """{answer: its accuracy} of what the annotators said; every other answer has 0."""
    given = [_one_line(answer) for answer in answers]
    if len(set(given)) > 1:
        given = [without_punctuation(answer) for answer in given]
    total = len(given)
    return {
        answer: (count * min(1, (count - 1) / 3) + (total - count) * min(1, count / 3)) / total
        for answer, count in Counter(given).items()
    }


def normalised(answer: str) -> str:
    """A model's answer as it is compared with the annotators'."""
    words = (NUMBERS.get(word, word) for word in without_punctuation(_one_line(answer)).lower().split())
    return " ".join(SPELLED.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(text: str) -> str:
    """A mark that stands next to a blank somewhere in the text vanishes, as do all marks if there is a comma between
    digits; others become blanks. Full stops vanish but before a digit."""
    plain, found = text, DIGIT_COMMA.search(text) is not None
    for mark in MARKS:
        vanishes = found or f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if vanishes else " ")
    return FULL_STOP.sub("", plain)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _probabilities(exam: Exam, asked: Sequence[tuple[str, str]], listed: list[str]) -> Iterator[Vectors]:
    """Of each (picture, question) the probabilities of the candidates (C,)."""
    for start in range(0, len(asked), BLOCK):
        pictures, questions = zip(*asked[start : start + BLOCK], strict=True)
        yield from exam.classes("vqa", [Picture(path) for path in pictures], questions, listed)


def _asked(folder: Path, path: str) -> dict[int, tuple[int, str]]:
    """{question's number: (photo's number, question)} of a file of questions."""
    asked = {}
    for i, entry in enumerate(_listed(folder, path, "questions")):
        where = f"{folder / path}: question {i}"
        number = files.field(entry, "question_id", int, where)
        if number in asked:
            raise UserError(f"{where}: question_id {number} occurs twice. Fetch the official file again.")
        asked[number] = (files.field(entry, "image_id", int, where), files.field(entry, "question", str, where))
    return asked


def _listed(folder: Path, path: str, name: str) -> list[Any]:
    found = files.field(files.read_json(folder, path), name, list, str(folder / path))
    if not found:
        raise UserError(f"{folder / path}: `{name}` is empty. Fetch the official file again.")
    return list(found)


def _entry(entry: Any, asked: dict[int, tuple[int, str]], split: str, where: str) -> dict[str, Any]:
    number, photo = (files.field(entry, name, int, where) for name in ("question_id", "image_id"))
    if asked.get(number, (None, ""))[0] != photo:
        raise UserError(f"{where}: question {number} of photo {photo} is not in the file of questions.")
    kind = files.field(entry, "answer_type", str, where)
    if kind not in TYPES:
        raise UserError(f"{where}: answer_type `{kind}` is none of {', '.join(TYPES)}.")
    answers = [files.field(one, "answer", str, where) for one in files.field(entry, "answers", list, where)]
    if len(answers) != ANNOTATORS:
        raise UserError(f"{where}: has {len(answers)} answers, not {ANNOTATORS}. Fetch the official file again.")
    return {
        "item_id": str(number), "group": photo, "picture": PICTURE.format(f"{split}2014", photo),
        "question": asked[number][1], "question_type": files.field(entry, "question_type", str, where),
        "answer_type": kind, "answers": answers,
    }  # fmt: skip


BENCHMARK = Official(
    name="vqa", title="VQAv2", ability="open questions about a photo",
    files=(
        File(QUESTIONS.format("val")), File(ANNOTATIONS.format("val")), File(CANDIDATES),
        File(QUESTIONS.format("train"), needed=False), File(ANNOTATIONS.format("train"), needed=False),
        File(TEST, needed=False),
    ),
    source="Questions and annotations come from visualqa.org (v2, CC-BY-4.0), answer_list.json from the data bundle "
    "that ALBEF's README links (github.com/salesforce/ALBEF).",
    pictures="COCO's in coco/val2014; coco/train2014 for fine-tuning, coco/test2015 for the test server",
    asks="vqa", load=load, score=score, metrics=metrics, headline=METRIC,
    submit=submit,
)  # fmt: skip
BENCHMARKS = {BENCHMARK.name: BENCHMARK}
