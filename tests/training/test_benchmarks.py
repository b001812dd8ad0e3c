import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.params import UserError
from tests.training.builders import (
    ConstantExaminee,
    FakeExaminee,
    compositional_items,
    retrieval_items,
    write_suites,
)
from training.benchmarks import BENCHMARKS
from training.blind import BlindScorer
from training.evaluate import score_all
from training.outcomes import SCHEMA, cells, column
from training.ranking import BLOCK, ranks

RETRIEVAL, COMPOSITIONAL = BENCHMARKS["catalog_retrieval"], BENCHMARKS["compositional"]


def unit(generator, n, size=16):
    raw = generator.normal(size=(n, size))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def slow_ranks(scores, correct):
    """The definition, one query at a time."""
    best = np.where(correct, scores, -np.inf).max(1)
    return 1 + ((scores >= best[:, None] - 1e-6) & ~correct).sum(1)


@pytest.mark.parametrize("size", [(5, 3), (BLOCK, BLOCK), (BLOCK + 1, 700), (2 * BLOCK + 40, 90)])
def test_blocked_ranks_equal_the_definition(size):
    generator = np.random.default_rng(size[0])
    left, right = unit(generator, size[0]), unit(generator, size[1])
    right[-1] = right[0]  # exact ties
    correct = generator.random(size) < 0.01
    correct[np.arange(size[0]), generator.integers(0, size[1], size[0])] = True
    correct[generator.integers(0, size[0], size[1]), np.arange(size[1])] = True
    rows, columns = ranks(left, right, np.argwhere(correct))
    scores = left @ right.T
    assert rows.tolist() == slow_ranks(scores, correct).tolist()
    assert columns.tolist() == slow_ranks(scores.T, correct.T).tolist()


def test_ranks_by_hand():
    """Scores .8 .6 0 / 0 .8 .6 / .6 .0 .8 and the same photo twice: a tie with a wrong photo costs a place."""
    right = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    left = np.array([[0.8, 0.6, 0], [0, 0.8, 0.6], [0.6, 0, 0.8]], np.float32)
    rows, columns = ranks(left, right, np.array([[0, 0], [1, 1], [2, 2], [0, 3]]))
    assert rows.tolist() == [1, 2, 1]  # title 1 scores .8 on photo 1 and on its copy, photo 3
    assert columns.tolist() == [1, 1, 1, 2]  # photo 3: .6 for its title 0, .8 for title 1


def test_ranks_demand_a_target_for_every_query():
    with pytest.raises(UserError, match="no correct target"):
        ranks(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([[0, 0]]))


def test_products_with_one_title_are_all_correct_for_it():
    """Two photos share the title `twin`; the second is found first, and the first does not push anything down."""
    titles = ["twin", "twin", *(f"t{i}" for i in range(12))]
    items = retrieval_items(14, titles)
    eye = np.eye(16)
    known = {f"image p{i}": eye[i] for i in range(14)} | {f"text t{i}": eye[i + 2] for i in range(12)}
    known["text twin"] = 0.6 * eye[0] + 0.8 * eye[1]
    outcomes = cells(RETRIEVAL.score(items, FakeExaminee(known)))
    for metric in ("t2i_R@1", "i2t_R@1"):
        assert column(outcomes["catalog_retrieval", metric], "outcome").tolist() == [1.0] * 14
    assert column(outcomes["catalog_retrieval", "t2i_R@1"], "detail").tolist() == [1.0] * 14


def test_photo_shown_by_two_products_accepts_either_title():
    items = retrieval_items(13, photos=["same", "same", *(f"p{i}" for i in range(11))])
    eye = np.eye(16)
    known = {"image same": eye[0], "text t0": eye[0], "text t1": eye[1]}
    outcomes = cells(RETRIEVAL.score(items, FakeExaminee(known, size=16)))
    i2t = column(outcomes["catalog_retrieval", "i2t_R@1"], "outcome")
    assert i2t[:2].tolist() == [1.0, 1.0]
    assert column(outcomes["catalog_retrieval", "t2i_R@1"], "outcome")[0] == 1


def test_recalls_follow_from_ranks():
    outcomes = cells(RETRIEVAL.score(retrieval_items(60), FakeExaminee()))
    for direction in ("t2i", "i2t"):
        rank = column(outcomes["catalog_retrieval", f"{direction}_R@1"], "detail")
        assert 1 <= rank.min() < rank.max() <= 60
        for k in (1, 5, 10):
            hits = column(outcomes["catalog_retrieval", f"{direction}_R@{k}"], "outcome")
            assert hits.tolist() == (rank <= k).astype(float).tolist()


def test_gallery_too_small_for_a_recall_is_an_error():
    with pytest.raises(UserError, match="needs more than 10"):
        RETRIEVAL.score(retrieval_items(10), FakeExaminee())


def test_constant_scorer_gets_nothing_anywhere(tmp_path):
    outcomes = score_all(ConstantExaminee(size=300), write_suites(tmp_path / "suites"))
    assert outcomes.schema == SCHEMA
    for (benchmark, metric), cell in cells(outcomes).items():
        if metric != BENCHMARKS[benchmark].control:  # the control does not ask the model
            assert column(cell, "outcome").sum() == 0, f"{benchmark} {metric}"


def test_compositional_is_strict():
    """Item 0 prefers the caption, item 1 the negative, item 2 ties."""
    items = compositional_items(3)
    items = items.set_column(items.column_names.index("negative"), "negative", pa.array(["n0", "n1", "n2"]))
    known = {"image p0": [1.0, 0.0], "image p1": [1.0, 0.0]}
    for index, (right, wrong) in enumerate([(0.9, 0.2), (0.3, 0.4), (0.5, 0.5)]):
        for name, score in (("caption", right), ("negative", wrong)):
            known[f"text {items[name][index].as_py()}"] = [score, math.sqrt(1 - score**2)]
    cell = cells(COMPOSITIONAL.score(items, FakeExaminee(known)))["compositional", "accuracy"]
    assert column(cell, "outcome").tolist() == [1, 0, 0]
    assert column(cell, "detail") == pytest.approx([0.7, -0.1, 0.0], abs=1e-6)
    assert column(cell, "slice").tolist() == ["object", "attribute", "object"]
    assert column(cell, "unit").tolist() == [0, 0, 1]


def test_blind_control_is_the_same_whoever_is_examined():
    items = compositional_items(12)
    one, two = (cells(COMPOSITIONAL.score(items, e)) for e in (FakeExaminee(), ConstantExaminee()))
    assert one["compositional", "blind_accuracy"] == two["compositional", "blind_accuracy"]


def test_blind_scorer_is_a_probability_distribution():
    """Witten-Bell: after any word, the probabilities of the known words and of one unknown sum to 1."""
    scorer = BlindScorer(["red shirt", "red cap for men", "blue shirt"])
    words = ["red", "shirt", "cap", "for", "men", "blue", "</s>", "unheard"]
    for before in ("<s>", "red", "for", "unheard"):
        assert sum(scorer._probability(before, word) for word in words) == pytest.approx(1)


def test_blind_scorer_by_hand():
    """One text `a`: pairs (<s>, a), (a, </s>); P(a) = P(</s>) = (1 + 2/3) / 4, P(a | <s>) = (1 + P(a)) / 2."""
    word = (1 + 2 / 3) / 4
    assert BlindScorer(["a"]).log_likelihood("A") == pytest.approx(2 * math.log((1 + word) / 2))


def test_blind_scorer_prefers_the_order_it_has_read():
    scorer = BlindScorer(["navy blue shirt", "navy blue cap", "white shirt"])
    assert scorer.log_likelihood("navy blue shirt") > scorer.log_likelihood("blue navy shirt")
    with pytest.raises(UserError, match="no captions"):
        BlindScorer([])


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda b: b.name)
class TestSuiteFiles:
    def test_missing(self, benchmark, tmp_path):
        with pytest.raises(UserError, match=r"not found, so .* cannot be scored.*dvc repro suites"):
            benchmark.items(tmp_path)

    def test_not_parquet(self, benchmark, tmp_path):
        (tmp_path / benchmark.suite).write_text("hello")
        with pytest.raises(UserError, match="not a parquet file"):
            benchmark.items(tmp_path)

    def test_column_missing(self, benchmark, tmp_path):
        path = write_suites(tmp_path) / benchmark.suite
        pq.write_table(pq.read_table(path).drop_columns(["image_key"]), path)
        with pytest.raises(UserError, match="`image_key` is missing"):
            benchmark.items(tmp_path)

    def test_empty_value(self, benchmark, tmp_path):
        path = write_suites(tmp_path, 3) / benchmark.suite
        table = pq.read_table(path)
        column_index = table.column_names.index("image_key")
        pq.write_table(table.set_column(column_index, "image_key", pa.array(["a", None, "b"])), path)
        with pytest.raises(UserError, match="`image_key` has 1 empty"):
            benchmark.items(tmp_path)

    def test_no_items(self, benchmark, tmp_path):
        path = write_suites(tmp_path) / benchmark.suite
        pq.write_table(pq.read_table(path).slice(0, 0), path)
        with pytest.raises(UserError, match="no items"):
            benchmark.items(tmp_path)

    def test_item_listed_twice(self, benchmark, tmp_path):
        path = write_suites(tmp_path) / benchmark.suite
        table = pq.read_table(path)
        pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
        with pytest.raises(UserError, match="item_id occurs twice"):
            benchmark.items(tmp_path)

    def test_declares_what_it_reports(self, benchmark, tmp_path):
        """The gate's metrics and the control are among the outcomes, one outcome per item."""
        items = benchmark.items(write_suites(tmp_path))
        outcomes = cells(benchmark.score(items, FakeExaminee()))
        for metric in (*benchmark.gate_metrics, *([benchmark.control] if benchmark.control else [])):
            assert sorted(outcomes[benchmark.name, metric]["item_id"].to_pylist()) == items["item_id"].to_pylist()

    def test_item_in_words(self, benchmark, tmp_path):
        """Every item has something to show beside its photo."""
        for item in benchmark.items(write_suites(tmp_path)).to_pylist():
            question = benchmark.question(item)
            assert question.asked or question.right
