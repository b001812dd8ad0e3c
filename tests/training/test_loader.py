"""The training loader's pixels against `data.images`, whatever the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data.images import ImageError, decode_rgb, to_pixels
from training.loader import Loader
from training.source import crop_box

DROP = Path(__file__).resolve().parents[2] / "data/starter/drop-1"


def photos(shard: str, count: int) -> list[bytes]:
    return pd.read_parquet(DROP / shard).image[:count].tolist()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str) -> Image.Image:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = np.random.default_rng(1).integers(0, 256, (30, 20, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed a quarter turn clockwise
    return encoded(noise("RGB"), "JPEG", exif=exif)


def test_whole_pictures_are_those_of_evaluation() -> None:
    files = [*photos("fashion-224-00.parquet", 12), *photos("fashion-060x080-00.parquet", 12), turned()]
    files += [encoded(noise("L"), "JPEG"), encoded(noise("CMYK"), "JPEG"), encoded(noise("RGBA"), "PNG")]
    files += [encoded(noise("RGB"), "WEBP"), encoded(noise("RGB"), "JPEG", progressive=True, subsampling=0)]
    order = [*reversed(range(len(files))), 3, 3]
    for size in ((224, 224), (40, 30)):
        loader = Loader(files, size, threads=2)
        made = loader.take(order)
        loader.close()
        expected = np.stack([to_pixels(decode_rgb(files[i]), size) for i in order]).transpose(0, 3, 1, 2)
        assert made.dtype == torch.uint8
        assert np.array_equal(made.numpy(), expected)


def test_crops_are_pillows_to_two_levels() -> None:
    files = [*photos("fashion-224-00.parquet", 16), *photos("fashion-060x080-00.parquet", 16)]
    chance = np.random.default_rng(0).random((len(files), 4))
    loader = Loader(files, (112, 96), threads=2)
    made = loader.take(range(len(files)), lambda row, size: crop_box(size, 0.7, chance[row]))
    loader.close()
    expected = []
    for file, numbers in zip(files, chance, strict=True):
        image = decode_rgb(file)
        expected.append(to_pixels(image.crop(crop_box(image.size, 0.7, numbers)), (112, 96)))
    gap = np.abs(made.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(expected))
    assert gap.max() <= 2
    assert gap.mean() < 0.1


def test_damaged_files_are_named_as_ever() -> None:
    whole = encoded(noise("RGB"), "PNG")
    loader = Loader([whole[: len(whole) // 2]], (8, 8), threads=1)
    with pytest.raises(ImageError, match="damaged"):
        loader.take([0])
    loader.close()
