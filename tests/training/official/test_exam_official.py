"""A model before official benchmarks: what it answers, and that each picture and text is encoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.images import decode_rgb, to_pixels
from data.params import UserError
from tests.serving import tiny
from tests.training.lincir_builders import clip_encoder, lincir
from training import embedding_cache, zero_shot
from training.methods.cma_clip import CmaClip
from training.official.contract import Picture
from training.official.exam import ModelExam
from training.task import Task

PICTURES = [Picture(f"coco/val2017/{i}.jpg") for i in range(5)]
TEXTS = ["red shirt", "blue dress for men", "red shirt", "a black bag"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, a few pictures, a dataset with texts."""
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path / "store/models/base", 0)
    (tmp_path / "benchmarks/coco/val2017").mkdir(parents=True)
    for i in range(5):
        (tmp_path / f"benchmarks/coco/val2017/{i}.jpg").write_bytes(tiny.picture((40 * i, 90, 200 - 40 * i), i))
    rows = {"title": ["red shirt", None], "derived_caption": ["a red shirt", "a bag"], "split": ["train", "test"]}
    (tmp_path / "store/dataset").mkdir(parents=True)
    pq.write_table(pa.table(rows), tmp_path / "store/dataset/products.parquet")
    return tmp_path


def exam(place: Path) -> ModelExam:
    return ModelExam(place / "store/models/base", place / "benchmarks")


def test_answers_are_those_of_the_encoder(place: Path) -> None:
    import torch

    from training.encoder import load_encoder

    encoder, asked = load_encoder(place / "store/models/base"), exam(place)
    files = [(place / "benchmarks" / picture.path).read_bytes() for picture in PICTURES]
    pixels = np.stack([to_pixels(decode_rgb(data), encoder.config.image_size) for data in files]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        photos = encoder.encode_image(torch.from_numpy(pixels.copy())).numpy()
        texts = encoder.encode_text(*encoder.tokenize(TEXTS)).numpy()
    assert np.allclose(asked.images(PICTURES), photos, atol=1e-5)
    assert np.allclose(asked.texts(TEXTS), texts, atol=1e-5)
    found = asked.match(PICTURES[:4], TEXTS)
    assert found.dtype == np.float32
    assert np.allclose(found, (photos[:4] * texts).sum(1), atol=1e-5)
    assert np.allclose(asked.compose(PICTURES[:4], TEXTS), zero_shot.compose(photos[:4], texts), atol=1e-5)
    assert asked.training_texts() == ["red shirt", "a red shirt"]


def test_classes_by_picture_or_text_or_both(place: Path) -> None:
    asked = exam(place)
    found = asked.classes("food", [PICTURES[0], None, PICTURES[0]], [None, "red shirt", "red shirt"], ["Shirt", "Bag"])
    assert found.shape == (3, 2)
    assert np.allclose(found.sum(1), 1, atol=1e-6)
    assert len(np.unique(found[:, 0])) == 3
    with pytest.raises(UserError, match="has no head for nlvr2"):
        asked.classes_of_pairs("nlvr2", [(PICTURES[0], PICTURES[1])], ["both are red"], ["False", "True"])


def test_pictures_and_texts_are_encoded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By content: a second exam, a copy under another name, and a retrained head cost no pass of the image trunk."""
    seen: list[int] = []
    see = ModelExam._see
    monkeypatch.setattr(ModelExam, "_see", lambda self, pictures: (seen.append(len(pictures)), see(self, pictures))[1])
    first = exam(place).images([*PICTURES, PICTURES[0]])
    assert np.array_equal(first[0], first[5])
    (place / "benchmarks/coco/val2017/0.jpg").rename(place / "benchmarks/coco/val2017/copy.jpg")
    again = exam(place).images([Picture("coco/val2017/copy.jpg"), *PICTURES[1:]])
    assert np.array_equal(again, first[:5])
    assert seen == [5]
    cut = exam(place).images([Picture("coco/val2017/1.jpg", box=(5, 5, 30, 30))])
    assert not np.allclose(cut, first[1])
    exam(place).images([Picture("coco/val2017/1.jpg", box=(5, 5, 30, 30), square=True)])
    assert seen == [5, 1, 1]
    exam(place).texts(TEXTS)
    before = sorted(embedding_cache.CACHE.rglob("*.safetensors"))
    exam(place).texts(TEXTS[::-1])
    assert sorted(embedding_cache.CACHE.rglob("*.safetensors")) == before


def test_no_items_no_vectors(place: Path) -> None:
    asked = exam(place)
    for found in (asked.images([]), asked.texts([]), asked.compose([], [])):
        assert found.shape == (0, 24)
    assert asked.match([], []).shape == (0,)


def test_missing_pictures_are_one_error(place: Path) -> None:
    asked = [*PICTURES, Picture("coco/val2017/7.jpg"), Picture("coco/val2017/8.jpg", box=(0, 0, 2, 2))]
    with pytest.raises(UserError, match=r"7\.jpg: picture not found \(2 of 7 picture files"):
        exam(place).images(asked)
    assert not list(embedding_cache.CACHE.rglob("*/pictures/*"))
    (place / "benchmarks/coco/val2017/2.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(UserError, match=r"2\.jpg: picture cannot be read"):
        exam(place).images(PICTURES)
    with pytest.raises(UserError, match="lies outside the picture"):
        exam(place).images([Picture("coco/val2017/1.jpg", box=(100, 0, 120, 10))])
    (place / "benchmarks/some.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"some\.parquet: picture cannot be read"):
        exam(place).images([Picture("some.parquet#1")])
    pq.write_table(pa.table({"id": ["2"], "image": [tiny.picture((1, 2, 3), 1)]}), place / "benchmarks/more.parquet")
    with pytest.raises(UserError, match=r"more\.parquet: holds no picture 1"):
        exam(place).images([Picture("more.parquet#1")])
    assert exam(place).images([Picture("more.parquet#2")]).shape == (1, 24)


# --- methods with answers of their own --------------------------------------------------------------------------------


def own(place: Path, task: Task) -> tuple[ModelExam, Path, list[str]]:
    """The exam of a saved method; the pictures once more in a parquet file, under these keys."""
    folder = place / "store/models/own"
    task.save(folder)
    files = [(place / "benchmarks" / picture.path).read_bytes() for picture in PICTURES]
    keys = [str(number) for number in range(len(files))]
    pq.write_table(pa.table({"image_key": keys, "jpeg": files}), place / "images.parquet")
    return ModelExam(folder, place / "benchmarks"), place / "images.parquet", keys


def test_lincir_composes_by_its_own_way(place: Path) -> None:
    task = lincir(clip_encoder()).eval()
    asked, images, keys = own(place, task)
    changes = ["in red", "for women", "in blue", "with dots", "without a belt"]
    assert np.allclose(asked.compose(PICTURES, changes), task.compose(images, keys, changes), atol=1e-5)
    summed = zero_shot.compose(asked.images(PICTURES), asked.texts(changes))
    assert not np.allclose(asked.compose(PICTURES, changes), summed, atol=0.1)


def test_cma_clip_recognises_its_own_classes(place: Path) -> None:
    config = CmaClip.Config(classes={"gender": ("men", "women", "kids")}, heads=2)
    task = CmaClip.build(config, clip_encoder()).eval()
    asked, images, keys = own(place, task)
    texts = ["red shirt", None, "a bag", "blue", None]
    names, expected = task.attributes(images, keys, texts)["gender"]
    assert names == ["men", "women", "kids"]
    assert np.allclose(asked.classes("gender", PICTURES, texts, names), expected, atol=1e-5)
    some = asked.classes("gender", PICTURES, texts, ["kids", "men"])
    assert np.allclose(some, expected[:, [2, 0]] / expected[:, [2, 0]].sum(1, keepdims=True), atol=1e-5)
    other = asked.classes("gender", PICTURES, texts, ["men", "dogs"])  # not its own: by embeddings
    assert not np.allclose(other[:, 0], expected[:, 0], atol=1e-3)
