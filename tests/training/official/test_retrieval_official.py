import gzip
import json

import numpy as np
import pytest

from data.params import UserError
from tests.training.official.fixture_retrieval import FIXTURES, THINGS, WORDS, multi30k
from tests.training.official.known_exam import Known
from training.benchmarks.retrieval import BENCHMARKS, load_coco, load_flickr
from training.official.files import check, missing
from training.official.recall import ranks_later_first
from training.outcomes import cells, column
from training.ranking import BLOCK

COCO, FLICKR = BENCHMARKS["coco_retrieval"], BENCHMARKS["flickr30k_retrieval"]


@pytest.fixture
def coco(tmp_path):
    FIXTURES["coco_retrieval"](tmp_path)
    return tmp_path / "coco_retrieval"


def ranks_of(outcomes, metric):
    cell = cells(outcomes)["coco_retrieval", metric]
    return dict(zip(cell["item_id"].to_pylist(), column(cell, "detail").tolist(), strict=True))


def test_items_are_the_pictures_and_five_captions_of_each(coco):
    entries = json.loads((coco / "coco_karpathy_test.json").read_text())
    entries[3]["caption"].append("a sixth that nobody counts")
    (coco / "coco_karpathy_test.json").write_text(json.dumps(entries))
    items = load_coco(coco).to_pylist()
    assert len(items) == 12 + 60
    assert items[3] == {
        "item_id": "coco/val2014/COCO_val2014_000000000003.jpg", "group": 3,
        "picture": "coco/val2014/COCO_val2014_000000000003.jpg", "text": "",
    }  # fmt: skip
    assert items[12 + 15]["text"] == WORDS[0].format(THINGS[3])
    assert items[12 + 15]["group"] == 3


def test_five_captions_at_ranks_3_9_20_40_50():
    """benchmarks.md §10: TR@1 0, TR@5 1, TR@10 1; the share of captions found (0.4 at 10) is nowhere."""
    captions = [f"caption {number}" for number in range(60)]
    entries = [("p0", [captions[rank - 1] for rank in (3, 9, 20, 40, 50)])]
    others = [text for text in captions if text not in entries[0][1]]
    entries += [(f"p{number}", others[5 * number - 5 : 5 * number]) for number in range(1, 12)]
    angle = {text: np.pi / 2 * number / 60 for number, text in enumerate(captions)}
    exam = Known({"coco/p0": [1, 0, 0, 0]}, {text: [np.cos(a), np.sin(a), 0, 0] for text, a in angle.items()}, size=4)
    items = _items(entries)
    outcomes = COCO.score(items, exam)
    for k, success in ((1, 0), (5, 1), (10, 1)):
        cell = cells(outcomes)["coco_retrieval", f"TR@{k}"]
        assert column(cell, "outcome")[cell["item_id"].to_pylist().index("coco/p0")] == success
    assert ranks_of(outcomes, "TR@1")["coco/p0"] == 3


def _items(entries):
    from training.benchmarks.retrieval import _queries

    return _queries((f"entry {n}", f"coco/{image}", texts) for n, (image, texts) in enumerate(entries))


def test_perfect_and_constant_model(coco):
    items = load_coco(coco)
    eye = dict(zip(THINGS, np.eye(16), strict=False))
    paths = dict.fromkeys(items["picture"].to_pylist())
    perfect = Known(
        dict(zip(paths, eye.values(), strict=True)), {w.format(t): eye[t] for t in THINGS for w in WORDS}
    )  # fmt: skip
    assert set(COCO.metrics(COCO.score(items, perfect)).values()) == {100.0}
    same = np.ones(16)
    constant = COCO.score(items, Known(dict.fromkeys(paths, same), dict.fromkeys(items["text"].to_pylist(), same)))
    found = COCO.metrics(constant)
    assert {name: value for name, value in found.items() if "official" not in name and value} == {}
    assert set(ranks_of(constant, "TR@1").values()) == {56.0}
    assert set(ranks_of(constant, "IR@1").values()) == {12.0}
    # The last picture's captions come first, and so does the last picture itself; of ten texts, two pictures are found.
    assert found["TR@1 (official)"] == found["TR@5 (official)"] == pytest.approx(100 / 12)
    assert found["TR@10 (official)"] == pytest.approx(200 / 12)
    assert [found[f"IR@{k} (official)"] for k in (1, 5, 10)] == pytest.approx([100 / 12, 500 / 12, 1000 / 12])


def test_mean_is_that_of_six_recalls(coco):
    found = COCO.metrics(COCO.score(load_coco(coco), Known()))
    assert found["mean"] == pytest.approx(np.mean([found[f"{side}@{k}"] for side in ("TR", "IR") for k in (1, 5, 10)]))


@pytest.mark.parametrize("size", [(3, 40), (BLOCK + 9, 30)])
def test_later_of_equal_scores_comes_first(size):
    """Against the order that the official scorers take, sorted stably so that it is defined."""
    generator = np.random.default_rng(size[1])
    left = np.eye(8, dtype=np.float32)[generator.integers(0, 8, size[0])]
    right = np.eye(8, dtype=np.float32)[generator.integers(0, 8, size[1])]
    pairs = np.column_stack([np.repeat(np.arange(size[0]), 2), generator.integers(0, size[1], 2 * size[0])])
    order = np.argsort(left @ right.T, axis=1, kind="stable")[:, ::-1]
    places = [[order[q].tolist().index(c) for c in pairs[pairs[:, 0] == q, 1]] for q in range(size[0])]
    shuffled = pairs[generator.permutation(len(pairs))]
    assert ranks_later_first(left, right, shuffled).tolist() == [1 + min(place) for place in places]


def test_matching_head_ranks_the_first_of_the_cosine_again(coco):
    """The cosine knows nothing, the head everything: what it gets to see comes first, the rest stays last."""
    items = load_coco(coco)
    right = {(row["picture"], row["text"]) for row in items.to_pylist()}
    exam = Known(match=lambda picture, text: float((picture, text) in right))
    found = COCO.metrics(COCO.score(items, exam))  # k_test 256 is more than all there is
    assert found["mean (re-ranked)"] == 100 > found["mean"]
    assert not any("re-ranked" in name for name in COCO.metrics(COCO.score(items, Known())))


def test_what_the_cosine_leaves_out_stays_last(coco):
    from training.benchmarks.retrieval import score

    items = load_coco(coco)
    right = {(row["picture"], row["text"]) for row in items.to_pylist()}
    outcomes = score("coco_retrieval", 2, items, Known(match=lambda picture, text: float((picture, text) in right)))
    before, after = ranks_of(outcomes, "IR@1"), ranks_of(outcomes, "IR@1 (re-ranked)")
    assert {after[item] for item, rank in before.items() if rank <= 2} == {1.0}
    assert {after[item] for item, rank in before.items() if rank > 2} == {12.0}


def test_flickr_comes_in_two_formats(tmp_path):
    folder = tmp_path / "flickr30k_retrieval"
    assert missing(FLICKR, folder)[0] == "flickr30k_test.json"
    multi30k(tmp_path)
    assert list(check(FLICKR, folder)) == [file.path for file in FLICKR.files[1:]]
    lines = load_flickr(folder)
    FIXTURES["flickr30k_retrieval"](tmp_path)
    assert load_flickr(folder).equals(lines)
    text = (folder / "test_2016.2.en").read_bytes()
    (folder / "test_2016.2.en").unlink()
    (folder / "test_2016.2.en.gz").write_bytes(gzip.compress(text))
    (folder / "flickr30k_test.json").unlink()
    assert load_flickr(folder).equals(lines)


def test_multi30k_file_with_a_line_too_few(tmp_path):
    multi30k(tmp_path)
    path = tmp_path / "flickr30k_retrieval" / "test_2016.4.en"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"test_2016\.4\.en: has 11 lines, but .* names 12 pictures"):
        load_flickr(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[2].pop("caption"), r"entry 2: field `caption` is missing"),
        (lambda entries: entries[2].update(image=3), r"entry 2: field `image` is int"),
        (lambda entries: entries[5].update(caption=["  "]), r"entry 5: field `caption` holds no text"),
        (lambda entries: entries.append(entries[0]), r"entry 12: coco/val2014/.* occurs twice"),
        (lambda entries: entries.clear(), "no list of pictures"),
    ],
)
def test_bad_entries_are_named(coco, change, message):
    path = coco / "coco_karpathy_test.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message):
        load_coco(coco)
