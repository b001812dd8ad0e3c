"""Pictures of a training batch, decoded by threads straight into one uint8 array: no float picture, no copies.

Whole pictures are pixel for pixel those of `data.images`. Random crops are resized by torch's uint8 kernel, 3.6 times
as fast as Pillow and at most 2 of 255 levels from it: no picture that is evaluated or served is ever cropped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from data.images import THREADS, decode_rgb, to_pixels

Box = tuple[int, int, int, int]  # left, top, right, bottom
Crop = Callable[[int, tuple[int, int]], Box]  # what stays of a row's picture of a size (width, height)
CHUNK = 8  # pictures per task: handing one over costs nothing beside them


class Loader:
    """Pictures from the bytes of their files, each stretched to `size` = (height, width)."""

    def __init__(self, files: Sequence[bytes], size: tuple[int, int], threads: int = THREADS) -> None:
        self.size = size
        self.plain = [_is_plain_jpeg(file) for file in files]
        self.files = [torch.from_numpy(np.frombuffer(bytearray(file), np.uint8)) for file in files]
        self._pool = ThreadPoolExecutor(threads)

    def take(self, positions: Sequence[int], crop: Crop | None = None) -> Tensor:
        """Pixels uint8 (B, 3, H, W) of the files at `positions`, in memory row by row and pixel by pixel."""
        made = torch.empty((len(positions), *self.size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

        def fill(start: int) -> None:
            for row in range(start, min(start + CHUNK, len(positions))):
                image = self._decode(positions[row])
                made[row].copy_(self._fitted(image, crop(row, (image.shape[2], image.shape[1])) if crop else None))

        list(self._pool.map(fill, range(0, len(positions), CHUNK)))
        return made

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _fitted(self, image: Tensor, box: Box | None) -> Tensor:
        """The part `box` of the picture, or the whole, stretched to `size`."""
        height, width = image.shape[1:]
        left, top, right, bottom = box or (0, 0, width, height)
        if (right - left, bottom - top) != (width, height):
            part = image[None, :, top:bottom, left:right]
            part = part.contiguous(memory_format=torch.channels_last)  # as a view it would take 2.5 times as long
            return F.interpolate(part, self.size, mode="bicubic", antialias=True)[0]
        if (height, width) == self.size:
            return image
        return _tensor(to_pixels(Image.fromarray(image.permute(1, 2, 0).numpy()), self.size))

    def _decode(self, position: int) -> Tensor:
        """The picture as displayed, (3, H, W)."""
        file = self.files[position]
        if self.plain[position]:
            return decode_jpeg(file, ImageReadMode.RGB)
        return _tensor(np.array(decode_rgb(file.numpy().tobytes())))


def _is_plain_jpeg(file: bytes) -> bool:
    """Whether torchvision decodes the file to Pillow's pixels: colour or grey, and no EXIF that could turn it."""
    try:
        image = Image.open(io.BytesIO(file), formats=("JPEG",))
    except Exception:  # whatever the reader meets; `decode_rgb` says it properly
        return False
    return image.mode in ("RGB", "L") and "exif" not in image.info


def _tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
