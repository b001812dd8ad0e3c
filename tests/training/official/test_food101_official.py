import collections
import json

import numpy as np
import pytest

from data.params import UserError
from tests.training.official.fixture_food101 import DISHES, FIXTURES
from tests.training.official.known_exam import Known
from training.benchmarks.food101 import BENCHMARKS, fit_items

FOOD = BENCHMARKS["upmc_food101"]


@pytest.fixture
def folder(tmp_path):
    FIXTURES["upmc_food101"](tmp_path)
    return tmp_path / "upmc_food101"


def change(path, edit):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def parts(items):
    return collections.Counter(items["part"].to_pylist())


def test_test_part_and_a_development_part_with_each_class(folder):
    items = FOOD.load(folder)
    assert parts(items) == {"test": 101, "dev": 101}
    assert items.to_pylist()[4] == {
        "item_id": "test testdish_004_0", "group": 4, "part": "test", "text": "how to cook dish 004 page 0",
        "pictures": ["upmc_food101/IMG/test/dish_004/dish_004_0.png"], "label": "dish_004",
    }  # fmt: skip
    assert items["group"].to_pylist() == list(range(202))
    dev = [row for row in items.to_pylist() if row["part"] == "dev"]
    assert sorted(row["label"] for row in dev) == DISHES  # by class
    rest = fit_items(folder)
    assert rest.num_rows == 101
    assert not set(rest["item_id"].to_pylist()) & {row["item_id"] for row in dev}


def test_development_part_is_the_same_however_the_files_were_split(folder):
    """MMBT's script puts other items into dev.jsonl on every run."""
    dev = lambda: sorted(row["text"] for row in FOOD.load(folder).to_pylist() if row["part"] == "dev")  # noqa: E731
    before = dev()
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[7:]))
    (folder / "dev.jsonl").write_text("".join(lines[:7]))
    assert dev() == before


def test_test_part_alone(folder):
    (folder / "train.jsonl").unlink()
    assert parts(FOOD.load(folder)) == {"test": 101}
    assert fit_items(folder) is None


def test_item_without_text_is_left_out(folder):
    change(folder / "test.jsonl", lambda lines: lines[3].update(text=" \n"))
    assert parts(FOOD.load(folder))["test"] == 100


def test_text_alone_shows_the_leak(folder):
    """A model that reads the dish in the text, but believes the picture: a hundred where it sees none."""
    items = FOOD.load(folder)

    def answer(task, pictures, texts, names):
        said = [names.index(f"dish_{text.split()[4]}") for text in texts]
        seen = [at if picture is None or at % 2 else 0 for at, picture in zip(said, pictures, strict=True)]
        return np.eye(len(names))[seen]

    found = FOOD.metrics(FOOD.score(items, Known(classes=answer)))
    assert found["text-only accuracy"] == found["dev text-only accuracy"] == 100
    assert found["accuracy"] == found["dev accuracy"] == pytest.approx(100 * 51 / 101)


def test_undecided_is_wrong(folder):
    exam = Known(classes=lambda task, pictures, texts, names: np.ones((len(texts), len(names))))
    assert set(FOOD.metrics(FOOD.score(FOOD.load(folder), exam)).values()) == {0.0}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[5].pop("text"), r"test\.jsonl: line 6: field `text` is missing"),
        (lambda lines: lines[5].update(label=""), r"test\.jsonl: line 6: field `label` or `img` is empty"),
        (lambda lines: lines.append(lines[0]), r"test\.jsonl: line 102: id testdish_000_0 occurs twice"),
        (lambda lines: lines[5].update(img="IMG/train/dish_000/dish_000_0.png"), "both in train"),
        (lambda lines: lines.clear(), "holds no item"),
    ],
)
def test_bad_lines_are_named(folder, edit, message):
    change(folder / "test.jsonl", edit)
    if "both" in message:  # whichever of the two was drawn
        change(folder / "test.jsonl", lambda lines: lines[6].update(img="IMG/train/dish_000/dish_000_1.png"))
    with pytest.raises(UserError, match=message):
        FOOD.load(folder)
