"""Disturbed photos: the same picture blurred, cut or noisy, as a customer's telephone might deliver it.

A function of picture, kind and `image_key` alone, so every model is shown the same ones and none is stored.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from data.images import decode_rgb, in_threads
from data.params import UserError

Kind = Literal["blur", "crop", "noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VERSION = 1  # raise it when a disturbance changes: it is part of the name that features are cached under
SIDE = 512  # pixels: larger pictures are brought down first, past what any tower sees
BLUR = 0.02  # standard deviation of the Gaussian, of the shorter side
KEPT = 0.7  # share of each side that a cut leaves
NOISE = 25.0  # standard deviation, of 255


def name(key: str, kind: Kind) -> str:
    """What a disturbed photo is called, in place of its `image_key`."""
    return f"{key}~{kind}{VERSION}"


def disturb(image: Image.Image, kind: Kind, key: str) -> Image.Image:
    """The picture (RGB), disturbed; chance comes from kind and key."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    chance = np.random.default_rng(list(hashlib.sha256(f"{kind} {key}".encode()).digest()))
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(BLUR * min(image.size)))
    if kind == "crop":
        width, height = (max(1, round(KEPT * side)) for side in image.size)
        left, top = int(chance.integers(image.width - width + 1)), int(chance.integers(image.height - height + 1))
        return image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32)
    noisy = pixels + chance.normal(0.0, NOISE, pixels.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def write(images: Path, keys: Sequence[str], kind: Kind, path: Path) -> list[str]:
    """The photos `keys` of the parquet file `images`, disturbed, as another such file; the names of all in order."""
    distinct = list(dict.fromkeys(keys))
    table = pq.read_table(images, columns=["image_key", "jpeg"], filters=[("image_key", "in", distinct)])
    jpegs = dict(zip(table["image_key"].to_pylist(), table["jpeg"].to_pylist(), strict=True))
    if absent := [key for key in distinct if key not in jpegs]:
        raise UserError(f"{images}: has no picture {absent[0]}. Build the dataset again (`dvc repro -f dataset`).")
    made = list(in_threads(lambda key: _png(disturb(decode_rgb(jpegs[key]), kind, key)), distinct))
    pq.write_table(pa.table({"image_key": [name(key, kind) for key in distinct], "jpeg": made}), path)
    return [name(key, kind) for key in keys]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
