"""Pictures that look the same: the same photo saved again is found, and neighbours in a catalog are not merged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.lookalikes import DISTANCE, Looks, _close, lookalikes, looks

SHARD = Path(__file__).resolve().parents[2] / "data/starter/drop-1/fashion-060x080-00.parquet"


def photos(count: int) -> list[bytes]:
    found: list[bytes] = pq.read_table(SHARD, columns=["image"])["image"].to_pylist()[:count]
    return found


def again(data: bytes, form: str, scale: float, **options: Any) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    stream = io.BytesIO()
    size = (round(picture.width * scale), round(picture.height * scale))
    picture.resize(size, Image.Resampling.LANCZOS).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("form", "scale", "quality"), [("JPEG", 1, 75), ("PNG", 0.5, None), ("JPEG", 2, 85)])
def test_a_photo_saved_again_is_found(form: str, scale: float, quality: int | None) -> None:
    originals = photos(40)
    options = {"quality": quality} if quality else {}
    found = [bool(lookalikes([looks(data), looks(again(data, form, scale, **options))])) for data in originals]
    assert sum(found) >= 36


def test_few_of_a_catalogs_photos_look_the_same() -> None:
    assert len(lookalikes([looks(data) for data in photos(600)])) <= 6


def test_pairs_are_those_of_comparing_everything_with_everything() -> None:
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = [np.uint64(1) << np.uint64(rng.integers(64)) for _ in range(240)]
    near = np.concatenate([hashes, *(hashes ^ np.array(flips[i * 60 : i * 60 + 60]) for i in range(4))])
    near[200:] ^= np.uint64(1 << 17)
    found = {pair for one, other in _close(near) for pair in zip(one.tolist(), other.tolist(), strict=True)}
    expected = {
        (i, j) for j in range(len(near)) for i in range(j) if int(near[i] ^ near[j]).bit_count() <= DISTANCE
    }  # fmt: skip
    assert found == expected
    assert len(expected) > 300


def test_another_colour_and_pale_things_are_not_the_same() -> None:
    thumb = np.full((16, 12, 3), 255, dtype=np.uint8)
    thumb[4:12, 3:9] = (200, 30, 30)
    blue = thumb.copy()
    blue[4:12, 3:9] = (30, 30, 200)
    close = thumb.copy()
    close[4:12, 3:9] += 2
    assert lookalikes([Looks(7, thumb), Looks(7, blue), Looks(7, close), Looks(~7 & 2**64 - 1, thumb)]) == [(0, 2)]
    pale, other = np.full((16, 12, 3), 250, dtype=np.uint8), np.full((16, 12, 3), 251, dtype=np.uint8)
    assert lookalikes([Looks(7, pale), Looks(7, other)]) == []
    assert lookalikes([]) == []
