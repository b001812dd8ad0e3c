"""Pictures that look the same though their pixels differ: saved again, resized, or taken of the same thing.

Two measurements must agree, because on a white background either alone takes any two ties for one. The perceptual hash
(64 bits: which of the lowest frequencies of a discrete cosine transform lie above their median; Zauner 2010) may differ
in `DISTANCE` bits, and thumbnails in colour may differ by `DIFFERENCE`, as a share of the pictures' own contrast. A
catalog's pale jewellery has so little contrast that only the same pixels count as the same picture.

Measured on the starter catalog (13,703 distinct pictures): 140 pairs, nearly all one thing in two shots or shades, of
which no group has more than 7 pictures; of 200 pictures saved again as JPEG of quality 60, halved and doubled in size,
180, 191 and 198 are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.images import decode_rgb

DISTANCE = 2  # bits of the hash; one less than there are `BANDS`, so that two hashes this close share a band
DIFFERENCE = 0.04  # mean absolute difference of the thumbnails over the standard deviation of the plainer one
BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and bits of each: the longer they are, the fewer hashes share one
SIDE, LOW = 32, 8  # pixels of the picture that is transformed; frequencies kept each way
THUMB = (12, 16)  # width and height
BLOCK = 1 << 22  # pairs of one bucket compared at a time


class Looks(NamedTuple):
    """What is compared of one picture: its hash and its thumbnail, uint8 (16, 12, 3)."""

    hash: int
    thumb: np.ndarray


def looks(image: bytes) -> Looks:
    """The hash and thumbnail of an encoded picture. Raises `ImageError` as `decode_rgb` does."""
    from scipy.fft import dctn

    picture = decode_rgb(image)
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float32)
    low = dctn(grey, norm="ortho")[:LOW, :LOW].ravel()
    bits = np.packbits(low > np.median(low[1:]))  # the first is the mean brightness, which says nothing of the shape
    thumb = np.asarray(picture.resize(THUMB, Image.Resampling.BICUBIC), dtype=np.uint8)
    return Looks(int.from_bytes(bits.tobytes(), "big"), thumb)


def lookalikes(pictures: Sequence[Looks]) -> list[tuple[int, int]]:
    """Every pair (earlier, later) of pictures that look the same, sorted."""
    if not pictures:
        return []
    hashes = np.array([picture.hash for picture in pictures], dtype=np.uint64)
    thumbs = np.stack([picture.thumb for picture in pictures])
    contrast = thumbs.std(axis=(1, 2)).mean(axis=1)
    found: set[tuple[int, int]] = set()
    for one, other in _close(hashes):
        gap = np.abs(thumbs[one].astype(np.int16) - thumbs[other]).mean(axis=(1, 2, 3))
        same = gap <= DIFFERENCE * np.minimum(contrast[one], contrast[other])
        found.update(zip(one[same].tolist(), other[same].tolist(), strict=True))
    return sorted(found)


def _close(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs whose hashes differ in at most `DISTANCE` bits, found through the bands they share; some come twice."""
    for first, bits in BANDS:
        part = (hashes >> np.uint64(first)) & np.uint64((1 << bits) - 1)
        order = np.argsort(part, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(part[order]) != 0])
        for members in np.split(order, starts[1:]):
            yield from _close_in(hashes, members)


def _close_in(hashes: np.ndarray, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The close pairs of one bucket, whose `members` are in ascending order; a block of rows at a time."""
    if len(members) < 2:
        return
    step = max(1, BLOCK // len(members))
    for start in range(0, len(members), step):
        rows = members[start : start + step]
        near = np.bitwise_count(hashes[rows][:, None] ^ hashes[members][None, :]) <= DISTANCE
        one, other = np.nonzero(near)
        later = members[other] > rows[one]
        if later.any():
            yield rows[one[later]], members[other[later]]
