"""FashionGen's own files, `fashiongen_256_256_{train,validation}.h5`: a row per photo, texts in ISO-8859-1."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data.params import UserError

TEXTS = "input_name", "input_description", "input_category", "input_subcategory"
PRODUCT, PHOTO = "input_productID", "input_image"


class Row(NamedTuple):
    """A photo: its place in the file, and what the file says of its product."""

    place: int
    product: str
    name: str
    description: str
    category: str
    subcategory: str


def rows(path: Path) -> Iterator[Row]:
    """The photos in the file's order. Raises `UserError` that names the file and what it lacks."""
    with _open(path) as file:
        if absent := [key for key in (PRODUCT, PHOTO, *TEXTS) if key not in file]:
            raise UserError(f"{path}: has no `{absent[0]}`. Fetch the official file again.")
        products = np.asarray(file[PRODUCT]).reshape(-1).tolist()
        texts = [np.asarray(file[key]).reshape(-1).tolist() for key in TEXTS]
        if not products or {len(column) for column in (*texts, file[PHOTO])} != {len(products)}:
            raise UserError(f"{path}: is empty, or its columns differ in length. Fetch the official file again.")
    for place, (product, *told) in enumerate(zip(products, *texts, strict=True)):
        yield Row(place, str(product), *(text.decode("iso-8859-1").strip() for text in told))


def photo(path: Path, place: int) -> bytes:
    """The photo of a row as a PNG, uncompressed."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(_kept(path)[PHOTO][place], np.uint8)).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


@functools.lru_cache(maxsize=2)
def _kept(path: Path) -> Any:
    return _open(path)


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: only h5py can read it. Run `pip install h5py`, or bring FashionViL's JSON.") from None
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: is no HDF5 file ({error}). Fetch the official file again.") from None
