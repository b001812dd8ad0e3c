"""Decode, check and resize images: the only place where bytes from outside become pixels.

Safe by order: the number of bytes first, then the format, then the size stated in the header, and only then the
decoder runs, for large pictures one at a time. The content decides, never the file's name. Training, evaluation and
serving all use `decode_rgb` and `to_pixels`, so they see the same pixels.

A picture has one answer to what it shows: animations are refused, since a person may look at another frame than the
model does. What lands is nothing but a picture: a file with something after the picture's end (an archive, a page, a
second picture) is refused by `examine`. Notes inside a picture (comments, profiles) are left behind when it is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from data import image_files
from data.params import UserError

T = TypeVar("T")
R = TypeVar("R")
FORMATS = ("JPEG", "PNG", "WEBP")
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")  # of the three formats' files
Reason = Literal[
    "empty", "too_many_bytes", "not_an_image", "too_many_pixels", "animated", "more_than_an_image", "damaged"
]  # fmt: skip
THREADS = min(4, os.cpu_count() or 1)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `ImageLimits` decides, and raises
ROWS = 512  # of pixels hashed at once
LARGE = 8_000_000  # pixels above which pictures are decoded one at a time: each takes up to 27 bytes a pixel
_ONE = threading.Lock()
Image.core.set_block_size(1 << 26)  # type: ignore[attr-defined] # freed blocks of its 16 MB stay in a thread's arena
BATCH = 64  # images per task of `in_threads`: large enough that handing over costs nothing


class ImageError(UserError):
    """Bytes that are not a usable image. `reason` is one short word of `Reason`."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What is refused before the decoder runs: `max_bytes` of one file, `max_pixels` stated in its header."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What landing records of one image. `width` and `height` as displayed, `mode` as stored (L, RGB, CMYK, ...)."""

    width: int
    height: int
    mode: str
    image_key: str
    grey_std: float


DEFAULT_LIMITS = ImageLimits()


def decode_rgb(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image as displayed, in RGB: rotated as its EXIF says, transparency over white.

    Raises `ImageError` for empty, oversized, truncated or foreign bytes; the pixels an image claims to have are checked
    against `limits` from its header, before any memory is spent on them.
    """
    image = _open(data, limits)
    with _turn(image):
        return _to_rgb(image)


def to_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """`image` (RGB) stretched to `size` = (height, width), as uint8 (H, W, 3).

    Always Pillow's antialiased bicubic from the full image (no JPEG draft mode, no reducing gap), so that the pixels
    are the same wherever this runs. Stretching is right for the catalog's squashed 3:4 photos: it un-squashes them.
    """
    height, width = size
    resized = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=None)
    return np.array(resized, dtype=np.uint8)


def pixel_key(image: Image.Image) -> str:
    """`image_key`: 32 hex digits of the SHA-256 over size and RGB pixels, equal for files showing the same picture."""
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    for top in range(0, image.height, ROWS):  # the same bytes as of the whole, without a copy of it
        digest.update(image.crop((0, top, image.width, min(top + ROWS, image.height))).tobytes())
    return digest.hexdigest()[:32]


def grey_std(image: Image.Image) -> float:
    """Standard deviation of the grey values (0-255, ITU-R 601 luma); near 0 for a blank picture."""
    counts = np.asarray(image.convert("L").histogram(), dtype=np.float64)
    values = np.arange(256)
    mean = (counts @ values) / counts.sum()
    return float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))


def examine(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageFacts:
    """Decode once and keep only the facts.

    Raises `ImageError` like `decode_rgb`, and for a file that holds more than its picture (a polyglot).
    """
    opened = _open(data, limits)
    mode = opened.mode
    if more := image_files.trailing(data):
        message = f"the file goes on after its picture ends ({len(more):,} bytes, {_beginning(more)}); save it again."
        raise ImageError("more_than_an_image", message)
    with _turn(opened):
        image = _to_rgb(opened)
        key, spread = pixel_key(image), round(grey_std(image), 3)
        return ImageFacts(width=image.width, height=image.height, mode=mode, image_key=key, grey_std=spread)


def in_threads(function: Callable[[T], R], items: Sequence[T], threads: int = THREADS) -> Iterator[R]:
    """`map(function, items)` in order, over threads: Pillow and hashlib let go of the interpreter while they work."""

    def run(batch: Sequence[T]) -> list[R]:
        return [function(item) for item in batch]

    with ThreadPoolExecutor(threads) as pool:
        for results in pool.map(run, _batches(items, BATCH)):
            yield from results


def _batches(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header only; the pixels stay undecoded until the checks have passed."""
    if not data:
        raise ImageError("empty", "the image is empty (0 bytes); send the file again.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "too_many_bytes", f"the image has {len(data):,} bytes, more than {limits.max_bytes:,}; send a smaller file."
        )
    _check_size(image_files.webp_size(data), limits)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ImageError("too_many_pixels", _bomb("more pixels than Pillow would open", limits)) from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        if data.startswith(STARTS):
            raise _damaged(error) from None
        raise ImageError("not_an_image", f"not a JPEG, PNG or WebP image ({_words(error)}); convert it.") from None
    _check_size(image.size, limits)
    if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a photo with its own preview
        raise ImageError("animated", f"the image is an animation of {_frames(image)} frames; send one still picture.")
    return image


def _check_size(size: tuple[int, int] | None, limits: ImageLimits) -> None:
    if size and size[0] * size[1] > limits.max_pixels:
        raise ImageError("too_many_pixels", _bomb(f"{size[0]} x {size[1]} pixels", limits))


def _turn(image: Image.Image) -> contextlib.AbstractContextManager[object]:
    """What to hold while an image is decoded."""
    return _ONE if image.width * image.height > LARGE else contextlib.nullcontext()


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        image.load()
        shown = _opaque(ImageOps.exif_transpose(image))
    except Exception as error:  # as above: a truncated file surfaces as OSError, SyntaxError, struct.error, ...
        raise _damaged(error) from None
    shown.info.clear()  # Pillow would write comments and profiles into whatever is saved from it
    return shown


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit grey to white instead of scaling it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _damaged(error: Exception) -> ImageError:
    return ImageError("damaged", f"the image is cut off or damaged ({_words(error)}); send it again.")


def _bomb(found: str, limits: ImageLimits) -> str:
    return f"the image claims {found}, above the limit of {limits.max_pixels:,}; send a smaller picture."


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _beginning(data: bytes) -> str:
    """The first bytes in a message, in quotes."""
    return f"{data[:12]!r}"[1:]


def _words(error: Exception) -> str:
    """The error in one line, without Pillow's memory address of the buffer."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "unknown format" if text.startswith("cannot identify image file") else text
