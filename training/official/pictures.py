"""Pictures of official benchmarks: read below the benchmarks folder, cut and padded as the benchmark asks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from data.images import ImageError, decode_rgb, in_threads, to_pixels
from data.params import UserError
from training.official.contract import Picture
from training.official.fashiongen_h5 import photo


def pixels(pictures: Sequence[Picture], root: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of each picture at `size`, in order. Raises `UserError` naming the first that cannot be read."""
    return in_threads(lambda picture: to_pixels(load(picture, root), size), pictures)


def load(picture: Picture, root: Path) -> Image.Image:
    """The picture in RGB, cut and padded."""
    try:
        found = decode_rgb(content(picture, root))
    except ImageError as error:
        raise UserError(f"{root / picture.path}: picture cannot be read ({error}). Fetch it again.") from None
    if picture.box is not None:
        found = _cut(found, picture)
    if picture.pad:
        found = _pad(found, picture.pad)
    return _square(found) if picture.square else found


def content(picture: Picture, root: Path) -> bytes:
    """The bytes of the picture's whole file, uncut. Raises `UserError`."""
    path, _, key = picture.path.partition("#")
    try:
        if path.endswith(".h5"):
            return photo(root / path, int(key))
        return _stored(root / path)[key] if key else (root / path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{root / path}: picture not found. Put the benchmark's official pictures there.") from None
    except KeyError:
        raise UserError(f"{root / path}: holds no picture {key}. Fetch the official file again.") from None
    except (OSError, ValueError) as error:  # ValueError: no parquet file, or none of pictures
        raise UserError(f"{root / path}: picture cannot be read ({error}). Fetch it again.") from None


def _cut(found: Image.Image, picture: Picture) -> Image.Image:
    assert picture.box is not None
    left, top, right, bottom = (round(value) for value in picture.box)
    box = max(left, 0), max(top, 0), min(right, found.width), min(bottom, found.height)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{picture.path}: box {picture.box} lies outside the picture of {found.width}x{found.height}.")
    return found.crop(box)


def _pad(found: Image.Image, ratio: float) -> Image.Image:
    """Black bars on both shorter sides, until the longer is at most `ratio` times the shorter; else as it is."""
    bar = max(0, int((max(found.size) / ratio - min(found.size)) / 2))
    return ImageOps.expand(found, (bar, 0) if found.width < found.height else (0, bar))


def _square(found: Image.Image) -> Image.Image:
    side = max(found.size)
    made = Image.new("RGB", (side, side))
    made.paste(found, ((side - found.width) // 2, (side - found.height) // 2))
    return made


@functools.lru_cache(maxsize=4)
def _stored(path: Path) -> dict[str, bytes]:
    """{id: file bytes} of a parquet file of pictures (columns `id` and `image`)."""
    if not path.is_file():
        raise FileNotFoundError(path)
    found = pq.read_table(path, columns=["id", "image"])
    return dict(zip(found["id"].to_pylist(), found["image"].to_pylist(), strict=True))
