import json

import numpy as np
import pytest

from data.params import UserError
from tests.training.official.fixture_mrwpa import CLASSES, FIXTURES
from tests.training.official.known_exam import Known
from training.benchmarks.mrwpa import BENCHMARKS, RECALL

MRWPA = BENCHMARKS["mrwpa"]


@pytest.fixture
def folder(tmp_path):
    FIXTURES["mrwpa"](tmp_path)
    return tmp_path / "mrwpa"


def test_a_row_for_each_label(folder):
    items = MRWPA.load(folder)
    assert items.num_rows == 16 + 16 + 8
    row = items.to_pylist()[3]
    assert row == {
        "item_id": "m1 color", "group": 1, "task": "color", "picture": "mrwpa/photos/1.png",
        "text": "A teal thing no. 1", "label": "teal",
    }  # fmt: skip


def test_recall_at_precision_by_hand(tmp_path):
    """benchmarks.md §10: right or wrong by confidence 1,0,1x8,0,0: 0.75. The other task never gets to nine in ten."""
    folder = tmp_path / "mrwpa"
    folder.mkdir()
    right = [1, 0, *[1] * 8, 0, 0]
    labels = [{"color": "red" if yes else "blue", "style": "slim"} for yes in right]
    lines = [{"id": str(n), "image": f"{n}.png", "title": str(n), "labels": label} for n, label in enumerate(labels)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "classes.json").write_text(json.dumps({"color": ["red", "blue"], "style": ["slim", "boxy"]}))

    def answer(task, pictures, texts, names):
        """Always red, ever less sure; always boxy."""
        sure = 0.99 - 0.03 * np.array([int(text) for text in texts])
        return np.column_stack([sure, 1 - sure] if task == "color" else [1 - sure, sure])

    items = MRWPA.load(folder)
    found = MRWPA.metrics(MRWPA.score(items, Known(classes=answer)))
    assert found[f"color {RECALL}"] == pytest.approx(75.0)
    assert found[f"style {RECALL}"] == 0
    assert found[RECALL] == pytest.approx(37.5)
    assert found["color accuracy"] == 75


def test_both_picture_and_title_are_shown(folder):
    asked = {}

    def answer(task, pictures, texts, names):
        asked[task] = (len(pictures), pictures[0].path, texts[0], tuple(names))
        return np.ones((len(texts), len(names)))

    found = MRWPA.metrics(MRWPA.score(MRWPA.load(folder), Known(classes=answer)))
    assert asked["style"] == (8, "mrwpa/photos/0.png", "A amber thing no. 0", tuple(CLASSES["style"]))
    assert set(found.values()) == {0.0}  # undecided is wrong


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("test.jsonl", '"plum"', '"puce"', r"line 3: `puce` is no class of task `color`"),
        ("test.jsonl", '"m4"', '"m3"', "line 5: id occurs twice"),
        ("test.jsonl", '"image": "photos/6.png", ', "", "line 7: field `image` is missing"),
        ("test.jsonl", '"photos/6.png"', '""', "line 7: field `image` is empty"),
        ("classes.json", '["plain", "dotted"]', '["plain"]', r"classes\.json: task `pattern` needs a list of two"),
        ("classes.json", "pattern", "print", "`plain` is no class of task `pattern`"),
    ],
)
def test_bad_files_are_named(folder, file, old, new, message):
    content = (folder / file).read_text()
    (folder / file).write_text(content.replace(old, new))
    with pytest.raises(UserError, match=message):
        MRWPA.load(folder)
