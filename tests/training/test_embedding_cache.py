"""Embeddings are kept by content: each picture and distinct text is encoded once per model over all benchmarks."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.serving import tiny
from tests.training.builders import write_workspace
from training import encoder, evaluate, examiner
from training.embedding_cache import EmbeddingCache, model_hash
from training.encoder import embed_texts, load_encoder

TEXTS = [f"red shirt number {word}" for word in ("one", "two", "three", "twenty five and a half", "six")]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lengths(items: Sequence[str]) -> np.ndarray:
    """A stand-in for a tower: the number of letters, and one."""
    return np.array([[len(item), 1] for item in items], np.float32)


class Counting:
    """An encoder that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, items: list[str]) -> np.ndarray:
        self.asked.update(items)
        return lengths(items)


def test_only_what_is_new_is_encoded() -> None:
    counting = Counting()
    cache: EmbeddingCache[str] = EmbeddingCache("m", "texts", counting)
    assert cache(["a", "bb", "a"]).tolist() == lengths(["a", "bb", "a"]).tolist()
    assert cache(["bb", "ccc"]).tolist() == lengths(["bb", "ccc"]).tolist()
    assert cache([]).shape == (0, 0)
    assert counting.asked == {"a": 1, "bb": 1, "ccc": 1}


def test_another_run_finds_them_on_disk_but_not_another_model_or_kind() -> None:
    EmbeddingCache("m", "texts", lengths)(["a", "bb"])
    again, other, images = Counting(), Counting(), Counting()
    assert EmbeddingCache("m", "texts", again)(["bb", "a"]).tolist() == lengths(["bb", "a"]).tolist()
    EmbeddingCache("n", "texts", other)(["a"])
    EmbeddingCache("m", "images", images)(["a"])
    assert (again.asked, other.asked, images.asked) == ({}, {"a": 1}, {"a": 1})


def test_items_are_known_by_their_name() -> None:
    pictures: EmbeddingCache[tuple[str, int]] = EmbeddingCache(
        "m", "pictures", lambda items: lengths([key for key, _ in items]), name=lambda item: f"{item[0]} {item[1]}"
    )
    assert pictures([("a", 1), ("bb", 1)]).tolist() == [[1, 1], [2, 1]]


def test_what_is_not_finite_is_given_but_not_kept() -> None:
    EmbeddingCache("m", "texts", lambda items: lengths(items) * np.nan)(["a"])
    assert EmbeddingCache("m", "texts", lengths)(["a"]).tolist() == [[1, 1]]


def test_a_file_that_was_cut_off_is_made_again() -> None:
    EmbeddingCache("m", "texts", lengths)(["a"])
    (path,) = Path("runs/cache/embeddings/m/texts").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    assert EmbeddingCache("m", "texts", lengths)(["a"]).tolist() == [[1, 1]]


def test_a_model_is_its_files_not_its_record(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "a", 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/record.json").write_text("{}")
    tiny.write_model(tmp_path / "c", 1)
    found = [model_hash(tmp_path / name) for name in "abc"]
    assert found[0] == found[1] != found[2]
    assert model_hash(tmp_path / "a", "cuda") != found[0]


def test_a_text_has_one_vector_whatever_it_is_asked_with(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "model", 0)
    model = load_encoder(tmp_path / "model")
    together = embed_texts(model, TEXTS)
    alone = np.concatenate([embed_texts(model, [text]) for text in TEXTS])
    assert np.array_equal(together, alone)
    assert np.array_equal(embed_texts(model, [*TEXTS[::-1], *(f"cap {i}" for i in range(150))])[:5], together[::-1])


def test_a_model_encodes_each_photo_and_text_once_over_all_its_exams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`base` sits every exam of every endpoint; a second evaluation encodes nothing."""
    write_workspace(tmp_path, models=("base",))
    texts, photos = Counter[str](), Counter[str]()
    real_texts, real_images = encoder.embed_texts, encoder.embed_images

    def counted_texts(model: encoder.DualEncoder, asked: Sequence[str]) -> np.ndarray:
        texts.update(asked)
        return real_texts(model, asked)

    def counted_images(model: encoder.DualEncoder, images: Path, keys: Sequence[str], label: str) -> np.ndarray:
        photos.update(keys)
        return real_images(model, images, keys, label)

    monkeypatch.setattr(encoder, "embed_texts", counted_texts)
    monkeypatch.setattr(encoder, "embed_images", counted_images)
    assert evaluate.main(["base"]) == 0
    assert set(texts.values()) == set(photos.values()) == {1}
    assert len(texts) > 8
    clean = {key for key in photos if "~" not in key}
    assert len(clean) == 36  # 24 of the test split, 24 that the suites show, 12 of them the same
    assert len(photos) == len(clean) + 3 * 24  # what the suites show is shown disturbed in three ways too
    once = (dict(texts), dict(photos))
    assert evaluate.main(["base", "--force"]) == 0
    assert (dict(texts), dict(photos)) == once
    assert examiner.Examiner(tmp_path / "store/models/base", tmp_path / "store/dataset").texts(["unheard"]).any()
    assert texts["unheard"] == 1
