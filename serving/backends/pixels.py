"""The image recipe of data/images.py, stated again for the serving environment, which has Pillow and NumPy only.

tests/serving/test_backend.py holds both to the same bytes. Copied into every exported version folder.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")


class BadImage(ValueError):
    """Bytes that are not a usable image, said in one sentence."""


def to_pixels(data: bytes, size: tuple[int, int], *, max_bytes: int, max_pixels: int) -> np.ndarray:
    """Encoded image to uint8 (H, W, 3) at `size` = (height, width). Raises `BadImage`, on a bomb before decoding it."""
    if not data:
        raise BadImage("the image is empty (0 bytes).")
    if len(data) > max_bytes:
        raise BadImage(f"the image has {len(data):,} bytes, more than {max_bytes:,}; send a smaller file.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImage(f"the image claims more than {max_pixels:,} pixels; send a smaller picture.") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        raise BadImage(f"not a JPEG, PNG or WebP image ({type(error).__name__}); convert it.") from None
    if image.width * image.height > max_pixels:
        raise BadImage(
            f"the image has {image.width} x {image.height} pixels, more than {max_pixels:,}; send a smaller one."
        )
    try:
        rgb = _rgb(image)
    except Exception as error:
        raise BadImage(f"the image is cut off or damaged ({type(error).__name__}); send it again.") from None
    height, width = size
    return np.array(rgb.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=None), dtype=np.uint8)


def _rgb(image: Any) -> Any:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit grey to white instead of scaling it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
