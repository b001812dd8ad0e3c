"""Decoding: what is refused and why, what the pixels are, and that nothing but an `ImageError` ever comes out."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_drops import jpeg

from data.images import (
    ImageError,
    ImageLimits,
    decode_rgb,
    examine,
    grey_std,
    in_threads,
    pixel_key,
    to_pixels,
)  # fmt: skip

PNG = b"\x89PNG\r\n\x1a\n"


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes of PNG whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason(data: bytes, limits: ImageLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode_rgb(data, limits=limits or ImageLimits())
    return caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_decode(format: str) -> None:
    image = decode_rgb(jpeg(1, (33, 21), format=format))
    assert (image.mode, image.size) == ("RGB", (33, 21))


@pytest.mark.parametrize("data", [
    *(encode(Image.new("RGB", (4, 4)), format) for format in ("GIF", "BMP", "TIFF")), b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"<html>404</html>", b"\0" * 100,
])  # fmt: skip
def test_other_formats_are_refused(data: bytes) -> None:
    assert reason(data) == "not_an_image"


def test_empty_and_oversized_files_are_refused_unread() -> None:
    assert reason(b"") == "empty"
    assert reason(jpeg(), ImageLimits(max_bytes=100)) == "too_many_bytes"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(format: str, kept: float) -> None:
    data = jpeg(3, (64, 64), format=format)
    assert reason(data[: int(len(data) * kept)]) in ("damaged", "not_an_image")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_000, 12_000, 50_000])
def test_an_image_bomb_is_refused_from_its_header(side: int) -> None:
    """On either side of the size at which Pillow itself would warn, and of that at which it would raise."""
    begun = time.perf_counter()
    assert reason(png_claiming(side, side)) == "too_many_pixels"
    assert time.perf_counter() - begun < 0.1


def test_a_pixel_limit_is_the_callers() -> None:
    assert reason(jpeg(size=(60, 80)), ImageLimits(max_pixels=60 * 80 - 1)) == "too_many_pixels"
    assert decode_rgb(jpeg(size=(60, 80)), limits=ImageLimits(max_pixels=60 * 80)).size == (60, 80)


def test_exif_rotation_is_applied() -> None:
    picture = Image.new("RGB", (20, 10), "white")
    picture.paste((255, 0, 0), (0, 0, 10, 10))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to display"
    image = decode_rgb(encode(picture, "PNG", exif=exif.tobytes()))
    assert image.size == (10, 20)
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((5, 15)) == (255, 255, 255)


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    image = decode_rgb(encode(clear))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (127, 127, 127)  # black at half strength over white
    assert decode_rgb(encode(Image.new("LA", (1, 1), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_entry_is_white() -> None:
    picture = Image.new("P", (1, 1), 0)
    picture.putpalette([10, 20, 30])
    assert decode_rgb(encode(picture)).getpixel((0, 0)) == (10, 20, 30)
    assert decode_rgb(encode(picture, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_grey_and_cmyk_become_rgb() -> None:
    assert decode_rgb(encode(Image.new("L", (1, 1), 77))).getpixel((0, 0)) == (77, 77, 77)
    red, green, blue = decode_rgb(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert red > 240
    assert green < 15
    assert blue < 15


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((2, 2), 0x4000, dtype=np.uint16))
    assert decode_rgb(encode(deep)).getpixel((0, 0)) == (0x40, 0x40, 0x40)


def test_pixels_are_stretched_to_height_and_width() -> None:
    halves = Image.new("RGB", (10, 10), "black")
    halves.paste((255, 255, 255), (5, 0, 10, 10))
    pixels = to_pixels(halves, (40, 20))
    assert pixels.shape == (40, 20, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, -4:] == 255).all()
    assert pixels.flags.writeable


def test_a_flat_picture_stays_flat() -> None:
    assert (to_pixels(Image.new("RGB", (60, 80), (12, 34, 56)), (96, 72)) == (12, 34, 56)).all()


def test_the_key_is_of_the_pixels_not_of_the_file() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    assert pixel_key(decode_rgb(encode(picture))) == pixel_key(decode_rgb(encode(picture, compress_level=0)))
    assert len(pixel_key(picture)) == 32


def test_the_key_tells_sizes_apart() -> None:
    assert pixel_key(Image.new("RGB", (2, 3))) != pixel_key(Image.new("RGB", (3, 2)))


def test_grey_deviation_by_hand() -> None:
    halves = Image.new("RGB", (4, 2), "black")
    halves.paste((255, 255, 255), (0, 0, 2, 2))
    assert grey_std(halves) == pytest.approx(127.5)
    assert grey_std(Image.new("RGB", (4, 2), "white")) == 0


def test_examining_keeps_the_stored_mode_and_the_shown_size() -> None:
    facts = examine(jpeg(2, (30, 40), mode="L"))
    assert (facts.width, facts.height, facts.mode) == (30, 40, "L")
    assert facts.image_key == pixel_key(decode_rgb(jpeg(2, (30, 40), mode="L")))


def test_threads_keep_the_order_and_pass_errors_on() -> None:
    assert list(in_threads(lambda n: n * n, range(1000))) == [n * n for n in range(1000)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 // (n - 500), range(1000)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_an_image_error(data: st.DataObject) -> None:
    """Valid files with a few bytes overwritten, and plain noise."""
    original = bytearray(jpeg(5, (16, 16), format=data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))))
    for _ in range(data.draw(st.integers(0, 8))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(original), data.draw(st.binary(max_size=64))):
        try:
            image = decode_rgb(candidate, limits=ImageLimits(max_pixels=10**6))
        except ImageError:
            continue
        assert image.mode == "RGB"
        assert image.width * image.height <= 10**6
