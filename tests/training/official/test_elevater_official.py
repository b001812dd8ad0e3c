import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from data.params import UserError
from tests.training.official.fixture_elevater import FIXTURES, INDICES, VOC, voc
from tests.training.official.fixture_retrieval import THINGS
from tests.training.official.known_exam import Known
from training.benchmarks.elevater import BENCHMARKS, SETS, eleven_points
from training.outcomes import cells, column

ELEVATER = BENCHMARKS["elevater"]


@pytest.fixture
def folder(tmp_path):
    FIXTURES["elevater"](tmp_path)
    return tmp_path / "elevater"


def path(name, number):
    return f"elevater/{name}/test/{number % 2}/no {number}.png"


def only(folder, *names):
    """The items of some sets."""
    for name in {found.parent.name for found in folder.glob("*/test.txt")} - set(names):
        (folder / name / "test.txt").unlink()
    return ELEVATER.load(folder)


def prompts(name):
    return [f"a photo of a {name}.", f"the {name}, seen by day"]


def towards(names, size=16):
    """Both prompts of class i along axis i."""
    return {text: np.eye(size)[place] for place, name in enumerate(names) for text in prompts(name)}


def test_twenty_sets_with_the_metrics_of_elevater():
    by_metric = {}
    for name, (_, metric) in SETS.items():
        by_metric.setdefault(metric, set()).add(name)
    assert {metric: len(names) for metric, names in by_metric.items()} == {
        "accuracy": 15, "mean per class": 4, "11-point mAP": 1, "ROC-AUC": 1,
    }  # fmt: skip
    assert len(set(SETS) - {"imagenet-1k"}) == 20


def test_items_of_the_installed_sets(folder):
    items = ELEVATER.load(folder)
    assert items.num_rows == 20 + 11 + 7
    row = items.to_pylist()[3]
    assert row == {
        "item_id": "cifar-10 elevater/cifar-10/test/1/no 3.png", "group": 3, "set": "cifar-10",
        "picture": path("cifar-10", 3), "labels": [3],
    }  # fmt: skip


def test_class_is_the_normalised_mean_of_its_prompts(folder):
    """Prompts of class 0 point to (1, 0) and, 10 times as long, to (0, 1): both count, and the picture lies between."""
    items = only(folder, "oxford-iiit-pets")
    texts = {"a photo of a collie.": [1, 0, 0], "the collie, seen by day": [0, 10, 0]}
    texts |= dict.fromkeys(prompts("manx"), np.array([0.6, 0, 0.8]))
    pictures = {path("oxford-iiit-pets", number): [1, 1, 0] for number in range(11)}
    outcomes = ELEVATER.score(items, Known(pictures, texts))
    lead = column(cells(outcomes)["elevater", "oxford-iiit-pets accuracy"], "detail")
    order = cells(outcomes)["elevater", "oxford-iiit-pets accuracy"]["item_id"].to_pylist()
    first = lead[order.index(f"oxford-iiit-pets {path('oxford-iiit-pets', 0)}")]
    assert first == pytest.approx(1 - 0.6 / np.sqrt(2), abs=1e-5)


def test_mean_per_class_by_hand(folder):
    """benchmarks.md §10: class A 9 of 10, class B 0 of 1: 45.0 where accuracy is 81.8."""
    items = only(folder, "oxford-iiit-pets")
    axis = [0] * 9 + [1, 0]
    pictures = {path("oxford-iiit-pets", number): np.eye(16)[at] for number, at in enumerate(axis)}
    found = ELEVATER.metrics(ELEVATER.score(items, Known(pictures, towards(["collie", "manx"]))))
    assert found["oxford-iiit-pets accuracy"] == pytest.approx(100 * 9 / 11)
    assert found["oxford-iiit-pets mean per class"] == found["mean"] == pytest.approx(45.0)
    truth = [0] * 10 + [1]
    assert found["oxford-iiit-pets mean per class"] == pytest.approx(100 * balanced_accuracy_score(truth, axis))


def test_acc_at_5_counts_ranks_to_5(folder):
    """The true class of picture n comes at rank 1 + n % 10."""
    items = only(folder, "cifar-10")
    pictures = {}
    for number in range(20):
        order = [c for c in range(10) if c != number % 10]
        order.insert(number % 10, number % 10)
        pictures[path("cifar-10", number)] = [10 - order.index(c) for c in range(10)] + [0] * 6
    outcomes = ELEVATER.score(items, Known(pictures, towards(THINGS[:10])))
    found = ELEVATER.metrics(outcomes)
    assert found["cifar-10 acc@5"] == 50
    assert found["cifar-10 accuracy"] == 10
    assert sorted(column(cells(outcomes)["elevater", "cifar-10 acc@5"], "detail")) == sorted([*range(1, 11)] * 2)


def test_roc_auc_is_that_of_scikit_learn_with_ties_lost(folder):
    items = only(folder, "hateful-memes")
    scores = np.array([0.1, 0.9, 0.4, 0.4, 0.3, 0.2, 0.9])
    pictures = {path("hateful-memes", n): [-s, s, np.sqrt(1 - 2 * s * s + 0j).real + 1] for n, s in enumerate(scores)}
    texts = towards(["kind words", "cruel words"], size=3)
    found = ELEVATER.metrics(ELEVATER.score(items, Known(pictures, texts)))
    length = [np.linalg.norm(pictures[path("hateful-memes", n)]) for n in range(7)]
    truth = np.array([int(label) for label in INDICES["hateful-memes"]])
    mine = 2 * scores / length
    assert found["hateful-memes ROC-AUC (official)"] == pytest.approx(100 * roc_auc_score(truth, mine.round(6)))
    pairs = [(a, b) for a in mine[truth == 1] for b in mine[truth == 0]]
    assert any(abs(a - b) < 1e-6 for a, b in pairs)
    assert found["hateful-memes ROC-AUC"] == pytest.approx(100 * np.mean([a > b + 1e-6 for a, b in pairs]))


def test_eleven_points_by_hand(folder, tmp_path):
    """One class, by rank yes no yes no: precision 1 to recall .5, then 2/3, so (6 + 5 * 2/3) / 11."""
    voc(tmp_path)
    items = only(folder, "voc-2007-classification")
    outcomes = ELEVATER.score(items, Known(size=8))
    one = outcomes.take([0, 1, 2, 3])
    for name, values in (("slice", ["x: yes", "x: no"] * 2), ("detail", [4.0, 3.0, 2.0, 1.0])):
        one = one.set_column(one.column_names.index(name), name, [values])
    assert eleven_points(one) == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    tied = one.set_column(one.column_names.index("detail"), "detail", [[1.0] * 4])
    assert eleven_points(tied) == pytest.approx(100 * (10 * 0.5 + 1) / 11)  # the share of the class, and the end


def test_several_labels(folder, tmp_path):
    """Scores are softmax over classes: what the picture is nearest to is what matters, not how near it is."""
    voc(tmp_path)
    items = only(folder, "voc-2007-classification")
    classes = [[int(label) for label in labels.split(",")] for labels in VOC]
    pictures = {
        path("voc-2007-classification", n): np.eye(16)[labels].sum(0) for n, labels in enumerate(classes)
    }  # fmt: skip
    outcomes = ELEVATER.score(items, Known(pictures, towards(THINGS[:3])))
    found = ELEVATER.metrics(outcomes)
    assert found["voc-2007-classification 11-point mAP"] == found["mean"] == 100
    assert outcomes.num_rows == 6 * 3
    wrong = {picture: 1 - vector for picture, vector in pictures.items()}
    assert ELEVATER.metrics(ELEVATER.score(items, Known(wrong, towards(THINGS[:3]))))["mean"] < 60


def test_constant_model_and_the_plain_mean(folder):
    items = ELEVATER.load(folder)
    same = {row["picture"]: np.ones(16) for row in items.to_pylist()}
    texts = dict.fromkeys(towards([*THINGS[:10], "collie", "manx", "kind words", "cruel words"]), np.ones(16))
    found = ELEVATER.metrics(ELEVATER.score(items, Known(same, texts)))
    assert {name: value for name, value in found.items() if "official" not in name and value} == {}
    assert found["cifar-10 accuracy (official)"] == 10  # the first class is always it
    assert found["oxford-iiit-pets mean per class (official)"] == found["hateful-memes ROC-AUC (official)"] == 50
    assert found["mean (official)"] == pytest.approx((10 + 50 + 50) / 3)
    assert "mean of 20" not in found


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "cifar-10/test.txt",
            lambda text: text.replace(" 7\n", " 12\n"),
            r"line 8: is not a picture and labels of the 10 classes",
        ),
        ("cifar-10/test.txt", lambda text: text.replace(" 7\n", " 1,2\n"), r"line 8: has several labels"),
        ("cifar-10/test.txt", lambda text: text + text, r"line 21: .* occurs twice"),
        ("cifar-10/test.txt", lambda text: "", "lists no picture"),
        ("en_classnames.json", lambda text: text.replace("cifar10", "cifar"), "entry `cifar10` is no list of words"),
        (
            "en_classnames.json",
            lambda text: text.replace(', "cruel words"', ""),
            "`hateful-memes` must name two classes",
        ),
    ],
)
def test_bad_files_are_named(folder, file, change, message):
    content = (folder / file).read_text()
    (folder / file).write_text(change(content))
    with pytest.raises(UserError, match=message):
        ELEVATER.load(folder)


def test_no_set_at_all(folder):
    with pytest.raises(UserError, match="no set is there"):
        only(folder)


def test_class_names_of_the_schema_are_those_of_the_file(folder):
    told = json.loads(ELEVATER.load(folder).schema.metadata[b"sets"])
    assert told["cifar-10"]["classes"] == list(THINGS[:10])
