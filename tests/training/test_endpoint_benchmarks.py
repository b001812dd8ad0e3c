"""The exams of the endpoints `compose` and `attributes`: by hand, by definition, and with scorers that know nothing."""

import math

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from data.suites_attributes import LEAST, TASKS
from data.suites_attributes import classes as classes_of_rows
from tests.training.builders import (
    CLASSES,
    ConstantExaminee,
    FakeExaminee,
    attribute_items,
    composed_items,
    write_workspace,
)
from training import labels, zero_shot
from training.benchmarks import BENCHMARKS
from training.benchmarks.attributes import recalls
from training.outcomes import cells, column, outcome_table
from training.ranking import BLOCK
from training.ranking import ranks_without_own as ranks

COMPOSED, ATTRIBUTES = BENCHMARKS["composed_retrieval"], BENCHMARKS["attributes"]


def unit(generator, n, size=16):
    raw = generator.normal(size=(n, size))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


class TestComposedRanks:
    def test_pessimistic_rank(self):
        """Target .5, others .5, .5, .4: those that tie count, so the rank is 3; the reference scores 1 and is gone."""
        photos = np.array([[1, 0], [0.5, 1], [0.5, 1], [0.5, 1], [0.4, 1]], np.float32)
        assert ranks(np.array([[1, 0]], np.float32), photos, np.array([0]), [[2]]).tolist() == [3]

    def test_reference_is_nearest_and_target_second(self):
        photos = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
        assert ranks(photos[:1], photos, np.array([0]), [[1]]).tolist() == [1]

    def test_further_targets_push_nothing_down(self):
        """Scores 1, .9, .8, .7 with the second and the fourth right: rank 2, as if there were one target."""
        photos = np.array([[1.0], [0.9], [0.8], [0.7], [0.0]], np.float32)
        assert ranks(np.ones((1, 1), np.float32), photos, np.array([4]), [[1, 3]]).tolist() == [2]
        assert ranks(np.ones((1, 1), np.float32), photos, np.array([4]), [[0, 1, 2]]).tolist() == [1]

    @pytest.mark.parametrize("n", [5, BLOCK, BLOCK + 3])
    def test_blocks_equal_the_definition(self, n):
        generator = np.random.default_rng(n)
        queries, photos = unit(generator, n), unit(generator, 40)
        photos[7] = photos[8]
        own = generator.integers(0, 40, n)
        right = [[(int(me) + int(step)) % 40 for step in 1 + generator.choice(39, 1 + me % 5, False)] for me in own]
        scores = queries @ photos.T
        slow = []
        for q, me in enumerate(own):
            best = max(scores[q, k] for k in right[q])
            wrong = [k for k in range(40) if k != me and k not in right[q]]
            slow.append(1 + sum(scores[q, k] >= best - 1e-6 for k in wrong))
        assert ranks(queries, photos, own, right).tolist() == slow


class TestComposedRetrieval:
    def test_recalls_follow_from_ranks(self):
        outcomes = cells(COMPOSED.score(composed_items(60), FakeExaminee()))
        rank = column(outcomes["composed_retrieval", "R@1"], "detail")
        assert 1 <= rank.min() < rank.max() <= 59  # 60 photos, the query's own is no candidate
        for k in (1, 5, 10):
            hits = column(outcomes["composed_retrieval", f"R@{k}"], "outcome")
            assert hits.tolist() == (rank <= k).astype(float).tolist()
        assert set(column(outcomes["composed_retrieval", "R@10"], "slice")) == {"base_colour", "gender"}

    def test_photo_alone_and_wish_alone_are_the_model_without_its_other_half(self):
        """Each half points straight at the answer of one item, the composed query at that of none."""
        items = composed_items(4, [["p40"], ["p42"], ["p40"], ["p42"]])
        eye = np.eye(80)
        known = {f"image p{2 * i}": eye[i] for i in range(60)}
        known |= {"text for men": eye[20], "text in red": eye[70]}  # eye[20] is the photo p40
        known |= {f"query p{2 * i} {c}": eye[70 + i] for i in range(4) for c in ("for men", "in red")}
        outcomes = cells(COMPOSED.score(items, FakeExaminee(known, size=80)))
        assert column(outcomes["composed_retrieval", "text_only_R@10"], "outcome").tolist() == [1, 0, 1, 0]
        for metric in ("R@10", "image_only_R@10"):
            assert column(outcomes["composed_retrieval", metric], "outcome").sum() == 0

    def test_random_scorer_gets_what_chance_gives(self):
        """400 items with 1 to 4 answers among 59 candidates: 1 - C(59 - t, k) / C(59, k) each."""
        generator = np.random.default_rng(1)
        photos = [f"p{2 * i}" for i in range(60)]
        drawn = [
            sorted(generator.choice([p for p in photos if p != photos[i % 60]], 1 + i % 4, replace=False).tolist())
            for i in range(400)
        ]
        items = composed_items(400, drawn)
        own = [photos[i % 60] for i in range(400)]
        wishes = [f"wish {i}" for i in range(400)]  # 400 different queries
        for name, values in (("image_key", own), ("condition", wishes)):
            items = items.set_column(items.column_names.index(name), name, pa.array(values))
        outcomes = cells(COMPOSED.score(items, FakeExaminee(size=32)))
        for k in (1, 5, 10):
            chances = np.array([1 - math.comb(59 - len(t), k) / math.comb(59, k) for t in drawn])
            error = math.sqrt((chances * (1 - chances)).sum()) / 400
            found = column(outcomes["composed_retrieval", f"R@{k}"], "outcome").mean()
            assert abs(found - chances.mean()) < 4 * error, k

    def test_constant_scorer_gets_nothing(self):
        for cell in cells(COMPOSED.score(composed_items(20), ConstantExaminee())).values():
            assert column(cell, "outcome").sum() == 0

    def test_answers_outside_the_gallery_and_no_answers(self):
        with pytest.raises(UserError, match="photo p99 is not of the test split"):
            COMPOSED.score(composed_items(2, [["p99"], ["p2"]]), FakeExaminee())
        with pytest.raises(UserError, match="an item has no right answer"):
            COMPOSED.score(composed_items(2, [[], ["p0"]]), FakeExaminee())

    def test_gallery_too_small_for_a_recall(self):
        class Few(FakeExaminee):
            def gallery(self):
                return super().gallery()[:11]  # ten candidates: R@10 would be 1 for everybody

        with pytest.raises(UserError, match="needs more than 11"):
            COMPOSED.score(composed_items(4), Few())


class TestAttributes:
    def answers(self, *probabilities):
        """An examinee that gives product p0, p1, … these probabilities of `CLASSES`, for both tasks."""

        class Fixed(FakeExaminee):
            def attributes(self, keys, texts):
                rows = np.array([probabilities[int(key[1:])] for key in keys])
                return {task: (list(CLASSES), rows) for task in ("gender", "article_type")}

        return Fixed()

    def test_highest_probability_strictly(self):
        """Labels Boys, Girls, Men: right and sure, wrong, and a tie with the right one first, which is no success."""
        examinee = self.answers([0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.1, 0.4, 0.4])
        found = cells(ATTRIBUTES.score(attribute_items(6), examinee))
        assert column(found["attributes", "blind_accuracy"], "outcome").tolist() == [0, 0, 0, 0, 1, 1]  # always "Men"
        cell = found["attributes", "accuracy"]
        assert column(cell, "outcome").tolist() == [1, 1, 0, 0, 0, 0]
        assert column(cell, "detail") == pytest.approx([0.7, 0.7, 0.6, 0.6, 0.4, 0.4])
        assert column(cell, "slice").tolist() == ["gender", "article_type"] * 3

    def test_class_the_model_does_not_know_is_a_failure(self):
        items = attribute_items(2)
        items = items.set_column(items.column_names.index("label"), "label", pa.array(["Unisex", "Boys"]))
        cell = cells(ATTRIBUTES.score(items, self.answers([0.7, 0.1, 0.1, 0.1])))["attributes", "accuracy"]
        assert column(cell, "outcome").tolist() == [0, 1]

    def test_missing_titles_are_told_as_none(self):
        seen = []

        class Listening(FakeExaminee):
            def attributes(self, keys, texts):
                seen.extend(texts)
                return super().attributes(keys, texts)

        ATTRIBUTES.score(attribute_items(12), Listening())
        assert seen[0] is None
        assert all(isinstance(text, str) and text for text in seen[1:5])

    def test_task_the_model_does_not_answer_and_numbers_that_are_none(self):
        items = attribute_items(2)
        renamed = items.set_column(items.column_names.index("task"), "task", pa.array(["season", "gender"]))
        with pytest.raises(UserError, match="answers gender, article_type but not season"):
            ATTRIBUTES.score(renamed, FakeExaminee())
        with pytest.raises(UserError, match="not numbers"):
            ATTRIBUTES.score(items, self.answers([0.7, np.nan, 0.1, 0.1]))

    def test_random_scorer_gets_what_chance_gives(self):
        n = 1600
        found = column(cells(ATTRIBUTES.score(attribute_items(n), FakeExaminee()))["attributes", "accuracy"], "outcome")
        error = math.sqrt(0.25 * 0.75 / (n / 2))  # both tasks of a product share their answer
        assert abs(found.mean() - 0.25) < 4 * error

    def test_constant_scorer_gets_nothing(self):
        outcomes = ATTRIBUTES.score(attribute_items(16), ConstantExaminee())
        assert column(cells(outcomes)["attributes", "accuracy"], "outcome").sum() == 0
        assert {number["value"] for number in recalls(outcomes).values()} == {0.0}


class TestRecallAtPrecision:
    def outcomes(self, correct, families=1):
        """Of one task, in the order of confidence."""
        n = len(correct)
        group = pa.array([i // families for i in range(n)], pa.int64())
        items = pa.table({"item_id": [f"{i:05}" for i in range(n)], "group": group})
        sure = np.linspace(1, 0.5, n)
        return outcome_table("attributes", "accuracy", items, np.array(correct, bool), sure, ["gender"] * n)

    def test_by_hand(self):
        """1, 0, 1 x 8, 0, 0 by confidence: nine of the first ten are right, so 9 of 12 products."""
        found = recalls(self.outcomes([1, 0, *[1] * 8, 0, 0]))
        assert found["recall_at_90_precision"]["value"] == found["recall_at_90_precision/gender"]["value"] == 0.75
        assert found["recall_at_90_precision"]["n"] == 12

    def test_interval_is_of_families_and_the_same_every_time(self):
        correct = (np.random.default_rng(0).random(900) < np.linspace(1, 0.5, 900)).astype(int)
        alone, together = recalls(self.outcomes(correct)), recalls(self.outcomes(np.repeat(correct, 4), families=4))
        for found in (alone, together):
            number = found["recall_at_90_precision"]
            assert number["low"] < number["value"] < number["high"]
        width = [found["recall_at_90_precision"]["high"] - found["recall_at_90_precision"]["low"]
                 for found in (alone, together)]  # fmt: skip
        assert width[1] == pytest.approx(width[0], rel=0.35)  # four copies of each item are no more evidence
        assert recalls(self.outcomes(correct)) == alone

    def test_is_among_the_metrics(self):
        assert ATTRIBUTES.computed is recalls


class TestZeroShot:
    def test_attributes_by_hand(self):
        """Photo (1, 0) and title (0, 1) meet at 45 degrees; classes at 0 and 45 degrees, scale 2."""
        half = 1 / math.sqrt(2)
        embedded = {"a title": [0, 1], "product for men": [1, 0], "product for women": [half, half]}
        found = zero_shot.attributes(
            np.array([[1, 0], [1, 0]], np.float32), ["a title", None],
            lambda texts: np.array([embedded[text] for text in texts], np.float32), {"gender": ["Men", "Women"]}, 2.0,
        )  # fmt: skip
        names, probabilities = found["gender"]
        assert names == ["Men", "Women"]
        with_title, alone = 1 / (1 + math.exp(2 * (1 - half))), 1 / (1 + math.exp(-2 * (1 - half)))
        assert probabilities[:, 0] == pytest.approx([with_title, alone], abs=1e-6)
        assert probabilities.sum(1) == pytest.approx([1, 1])

    def test_task_without_classes_is_not_answered(self):
        found = zero_shot.attributes(np.eye(2, dtype=np.float32), [None] * 2, lambda _: np.eye(2), {"season": []}, 1.0)
        assert found == {}

    def test_compose_is_the_normalised_sum(self):
        photos, wishes = np.array([[1, 0], [1, 0]], np.float32), np.array([[0, 1], [-1, 0]], np.float32)
        assert zero_shot.compose(photos, wishes) == pytest.approx(np.array([[0.70710678, 0.70710678], [1, 0]]))


def test_suite_and_labels_agree_on_tasks_and_classes(tmp_path):
    """The suites may not import training, so the two definitions stand side by side."""
    import pyarrow.parquet as pq

    assert (TASKS, LEAST) == (labels.TASKS, labels.LEAST)
    write_workspace(tmp_path)
    dataset = tmp_path / "store/dataset"
    rows = [row for row in pq.read_table(dataset / "products.parquet").to_pylist() if row["split"] == "train"]
    assert classes_of_rows(rows) == labels.classes(dataset)
    assert classes_of_rows(rows)["gender"] == sorted(CLASSES)
