"""Disturbed photos: the same for every model, different from the clean one, and written where photos are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.images import decode_rgb
from data.params import UserError
from tests.serving import tiny
from training import disturbance
from training.disturbance import KINDS, NOISE, SIDE, disturb, name, write


def picture(width: int = 90, height: int = 120) -> Image.Image:
    """A checkerboard of fields ten pixels wide."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.where((x // 10 + y // 10) % 2, 200, 60).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_depends_on_the_photo_and_its_key_alone(kind: disturbance.Kind) -> None:
    clean = picture()
    one, two = disturb(clean, kind, "a"), disturb(clean, kind, "a")
    assert one.tobytes() == two.tobytes() != clean.tobytes()
    assert clean.tobytes() == picture().tobytes()
    if kind != "blur":  # which leaves nothing to chance
        assert one.tobytes() != disturb(clean, kind, "b").tobytes()


def test_blur_flattens_and_keeps_the_mean() -> None:
    clean, blurred = (np.asarray(image, float) for image in (picture(), disturb(picture(), "blur", "a")))
    assert blurred.std() < 0.9 * clean.std()
    assert blurred.mean() == pytest.approx(clean.mean(), abs=1)


def test_crop_keeps_seven_tenths_of_each_side() -> None:
    assert disturb(picture(90, 120), "crop", "a").size == (63, 84)
    assert disturb(picture(1, 1), "crop", "a").size == (1, 1)


def test_noise_has_the_stated_deviation() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    pixels = np.asarray(disturb(grey, "noise", "a"), float)
    assert pixels.std() == pytest.approx(NOISE, rel=0.02)
    assert pixels.mean() == pytest.approx(128, abs=0.5)


def test_large_photos_are_brought_down_first() -> None:
    assert max(disturb(picture(2 * SIDE, 300), "blur", "a").size) == SIDE


def test_written_photos_are_read_like_the_dataset_s(tmp_path: Path) -> None:
    images = tmp_path / "images.parquet"
    pq.write_table(
        pa.table({"image_key": ["a", "b"], "jpeg": [tiny.picture((9, 9, 200), seed=i) for i in (1, 2)]}), images
    )
    names = write(images, ["b", "a", "b"], "noise", tmp_path / "noisy.parquet")
    assert names == [name("b", "noise"), name("a", "noise"), name("b", "noise")]
    table = pq.read_table(tmp_path / "noisy.parquet")
    assert table["image_key"].to_pylist() == names[:2]
    stored = dict(
        zip(pq.read_table(images)["image_key"].to_pylist(), pq.read_table(images)["jpeg"].to_pylist(), strict=True)
    )
    expected = disturb(decode_rgb(stored["b"]), "noise", "b")
    assert decode_rgb(table["jpeg"][0].as_py()).tobytes() == expected.tobytes()
    with pytest.raises(UserError, match="has no picture c"):
        write(images, ["c"], "blur", tmp_path / "none.parquet")
