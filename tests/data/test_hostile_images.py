"""Hostile pictures, landed: each is quarantined in words, accepted for its pixels alone, or refuses the drop."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_drops import ROOT, Built, build, jpeg, tree

from data.images import ImageError, ImageLimits, decode_rgb, examine, pixel_key
from data.land import land
from data.params import UserError

PNG = b"\x89PNG\r\n\x1a\n"
MAX_BYTES, MAX_PIXELS = 200_000, 100_000
FLIPS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip  how a stored picture comes about that this orientation turns upright


def noise(seed: int, size: tuple[int, int] = (60, 80)) -> Image.Image:
    return decode_rgb(jpeg(seed, size))


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(seed: int, *chunks: bytes) -> bytes:
    """A good PNG with more chunks after its header."""
    data = encode(noise(seed))
    return data[:33] + b"".join(chunks) + data[33:]


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def webp_claiming(width: int, height: int) -> bytes:
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + encode(noise(1), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(jpeg(1))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def deep(seed: int) -> bytes:
    """16 bits a channel, which Pillow reads and does not write."""
    pixels = np.random.default_rng(seed).integers(0, 65536, (80, 60, 3), dtype=np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 60, 80, 16, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("run.sh", "echo")
    return stream.getvalue()


def animation(format: str) -> bytes:
    return encode(noise(1), format, save_all=True, append_images=[noise(2), noise(3)], duration=100)


PAGE = b"<html><script>alert(1)</script></html>"
FRAME = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60, 80, 0, 0, 1, 1, 0, 0))
BOMB = zlib.compress(b"\0" * 50_000_000, 9)  # 48 kB
QUARANTINED: dict[str, tuple[str, Callable[[], bytes], list[str]]] = {
    "empty file": ("x.jpg", lambda: b"", ["empty (0 bytes)"]),
    "too many bytes": ("x.png", lambda: png(1, chunk(b"prVt", b"x" * MAX_BYTES)), [f"more than {MAX_BYTES:,}"]),
    "truncated JPEG": ("x.jpg", lambda: jpeg(1)[:-500], ["cut off or damaged", "send it again"]),
    "truncated PNG": ("x.png", lambda: png(1)[:-500], ["cut off or damaged", "send it again"]),
    "truncated WebP": ("x.webp", lambda: encode(noise(1), "WEBP")[:-500], ["cut off or damaged"]),
    "truncated in its header": ("x.jpg", lambda: jpeg(1)[:100], ["cut off or damaged"]),
    "GIF with the extension of a JPEG": ("x.jpg", lambda: encode(noise(1), "GIF"), ["not a JPEG, PNG or WebP image"]),
    "page with the extension of a JPEG": ("x.jpg", lambda: PAGE, ["not a JPEG, PNG or WebP image"]),
    "SVG with a script": ("x.png", lambda: b"<svg onload='alert(1)'/>", ["not a JPEG, PNG or WebP image"]),
    "GIF header before a JPEG": ("x.jpg", lambda: b"GIF89a" + jpeg(1), ["not a JPEG, PNG or WebP image"]),
    "JPEG and ZIP": ("x.jpg", lambda: jpeg(1) + archive(), ["goes on after its picture ends", "PK", "save it again"]),
    "PNG and page": ("x.png", lambda: png(1) + PAGE, ["goes on after its picture ends", "<html"]),
    "WebP and PDF": ("x.webp", lambda: encode(noise(1), "WEBP") + b"%PDF-1.7", ["goes on after", "(8 bytes, '%PDF"]),
    "two JPEGs in one": ("x.jpg", lambda: jpeg(1) + jpeg(2), ["goes on after its picture ends"]),
    "animated PNG": ("x.png", lambda: animation("PNG"), ["animation of 3 frames", "one still picture"]),
    "animated WebP": ("x.webp", lambda: animation("WEBP"), ["animation of 3 frames", "one still picture"]),
    "bomb in a text chunk": ("x.png", lambda: png(1, chunk(b"zTXt", b"Comment\0\0" + BOMB)), ["too large"]),
    "bomb in a colour profile": ("x.png", lambda: png(1, chunk(b"iCCP", b"icc\0\0" + BOMB)), ["image"]),
    "more rows than its data": ("x.png", lambda: png_claiming(300, 300), ["cut off or damaged"]),
}

ACCEPTED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "PNG with the extension of a JPEG": ("a.jpg", lambda: png(1), "RGB"),
    "JPEG with the extension of a text": ("b.txt", lambda: jpeg(2), "RGB"),
    "JPEG without extension": ("c", lambda: jpeg(3), "RGB"),
    "CMYK JPEG": ("d.jpg", lambda: encode(noise(4).convert("CMYK"), "JPEG"), "CMYK"),
    "16-bit grey PNG": ("e.png", lambda: encode(Image.fromarray(np.full((80, 60), 900, np.uint16))), "I;16"),
    "16-bit RGB PNG": ("f.png", lambda: deep(1), "RGB"),
    "two-colour PNG": ("g.png", lambda: encode(noise(5).convert("1")), "1"),
    "transparent palette": ("h.png", lambda: encode(noise(6).convert("P"), transparency=0), "P"),
    "page in a comment": ("i.jpg", lambda: encode(noise(7), "JPEG", comment=PAGE), "RGB"),
    "page in a text chunk": ("j.png", lambda: png(8, chunk(b"tEXt", b"Comment\0" + PAGE)), "RGB"),
    "padding after the end": ("k.jpg", lambda: jpeg(9) + bytes(512), "RGB"),
    "one frame called an animation": ("l.png", lambda: png(10, chunk(b"acTL", struct.pack(">II", 1, 0)), FRAME), "RGB"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of every row, by the name of what it held."""

    products: dict[str, dict[str, Any]]
    quarantine: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def outcome(fresh_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All hostile pictures in one drop, among good ones."""
    kinds = [*QUARANTINED.items(), *ACCEPTED.items()]
    built = build(len(kinds) + 10)
    for row, (_, (name, make, _)) in zip(built.rows, kinds, strict=False):
        del built.images[row["image"]]
        row["image"] = f"{row['id']}/{name}"
        built.images[row["image"]] = make()
    folder = tmp_path_factory.mktemp("pictures")
    shutil.copytree(fresh_repository, folder / "repository")
    with contextlib.chdir(folder / "repository"):
        limit()
        (landing,) = land([write(built, folder / "drop")])
        names = {row["id"]: name for row, (name, _) in zip(built.rows, kinds, strict=False)}
        found = [
            {names.get(row["id"], row["id"]): row for row in pq.read_table(landing.folder / file).to_pylist()}
            for file in ("products.parquet", "quarantine.parquet")
        ]
    return Outcome(*found)


def limit() -> None:
    params = Path("params.yaml")
    text = params.read_text().replace("max_pixels: 50000000", f"max_pixels: {MAX_PIXELS}")
    params.write_text(text.replace("max_bytes: 20000000", f"max_bytes: {MAX_BYTES}"))


def write(built: Built, folder: Path) -> Path:
    """As `Built.write`, with folders for pictures that need one."""
    images, built.images = built.images, {}
    built.write(folder)
    for name, data in images.items():
        path = folder / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.parametrize("name", QUARANTINED)
def test_a_hostile_picture_is_quarantined_in_words(outcome: Outcome, name: str) -> None:
    row = outcome.quarantine[name]
    assert row["reasons"] == ["image_decodes"]
    (message,) = row["messages"]
    assert [words for words in ["catalog.csv line", *QUARANTINED[name][2]] if words not in message] == []
    assert row["image_key"] is None


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_picture_is_accepted_for_its_pixels(outcome: Outcome, name: str) -> None:
    row = outcome.products[name]
    assert (row["width"], row["height"], row["mode"]) == (60, 80, ACCEPTED[name][2])
    assert row["image_key"] == pixel_key(decode_rgb(ACCEPTED[name][1]()))


def test_good_rows_beside_hostile_ones_land(outcome: Outcome) -> None:
    assert len(outcome.quarantine) == len(QUARANTINED)
    assert len(outcome.products) == len(ACCEPTED) + 10


def test_notes_in_a_picture_do_not_outlive_decoding() -> None:
    """A page in a comment is no part of the pixels, nor of what is saved from them."""
    for name in ("page in a comment", "page in a text chunk"):
        data = ACCEPTED[name][1]()
        assert PAGE in data
        for format in ("JPEG", "PNG"):
            assert PAGE not in encode(decode_rgb(data), format)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", FLIPS)
def test_all_eight_orientations_show_the_same_picture(format: str, orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((200, 0, 0), (0, 0, 16, 16))
    upright.paste((0, 0, 200), (32, 0, 48, 32))
    flip = FLIPS[orientation]
    stored = upright if flip is None else upright.transpose(flip)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = encode(stored, format, exif=exif.tobytes(), **options)
    assert Image.open(io.BytesIO(data)).size == ((48, 32) if orientation < 5 else (32, 48))
    facts = examine(data)
    assert (facts.width, facts.height) == (48, 32)
    shown = np.asarray(decode_rgb(data), dtype=int)
    assert np.abs(shown - np.asarray(upright, dtype=int)).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert examine(encode(noise(1), exif=exif.tobytes())).image_key == examine(encode(noise(1))).image_key


@pytest.mark.parametrize("make", [
    lambda: png_claiming(50_000, 50_000), lambda: webp_claiming(16_384, 16_384), lambda: webp_claiming(1 << 24, 255),
    lambda: jpeg_claiming(65_500, 65_500), lambda: encode(Image.new("RGB", (400, 251))),
    lambda: encode(Image.new("RGB", (400, 251)), "WEBP", lossless=True),
    lambda: encode(Image.new("RGB", (400, 251)), "WEBP"),
], ids=["PNG", "WebP canvas", "WebP strip", "JPEG", "real PNG", "lossless WebP", "lossy WebP"])  # fmt: skip
def test_an_image_bomb_refuses_the_drop(repository: Path, tmp_path: Path, make: Callable[[], bytes]) -> None:
    limit()
    built = build()
    built.images["00009.jpg"] = make()
    folder = built.write(tmp_path / "drop")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"catalog\.csv line 4.*claims .* pixels.*, above the limit of 100,000"):
        land([folder])
    assert tree(tmp_path) == before


def test_a_bomb_is_refused_before_its_pixels_are_allocated() -> None:
    """In a process of its own, whose peak of memory is then the bomb's alone."""
    script = """
import resource, sys
from pathlib import Path
from data.images import ImageError, examine
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        examine(Path(path).read_bytes())
    except ImageError as error:
        assert error.reason == "too_many_pixels", error
    else:
        raise AssertionError(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    bombs = {"a": png_claiming(50_000, 50_000), "b": webp_claiming(16_384, 16_384), "c": jpeg_claiming(65_500, 65_500)}
    assert run_on(script, bombs) < 20_000  # KiB


@pytest.mark.slow
def test_large_pictures_are_decoded_one_at_a_time() -> None:
    """Four pictures of 25 million pixels at once take about what one takes, 0.7 GB."""
    script = """
import resource, sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from data.images import examine
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda path: examine(Path(path).read_bytes()), sys.argv[1:] * 2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    large = encode(Image.new("RGBA", (5000, 5000)), "WEBP", quality=1, method=0)
    assert run_on(script, {"a": large, "b": large}) < 1_200_000


def run_on(script: str, files: dict[str, bytes]) -> int:
    """The number that `script`, given files of these contents, prints last."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, data in files.items():
            paths.append(Path(folder, name))
            paths[-1].write_bytes(data)
        command = [sys.executable, "-c", script, *map(str, paths)]
        return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1])


@pytest.mark.parametrize(
    "name", [n for n in QUARANTINED if n not in ("JPEG and ZIP", "PNG and page", "WebP and PDF", "two JPEGs in one")]
)
def test_serving_refuses_the_same_pictures(name: str) -> None:
    """A shopper's photo may carry more than its picture (phones add video), and only its pixels are used."""
    with pytest.raises(ImageError):
        decode_rgb(QUARANTINED[name][1](), limits=ImageLimits(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS))


@pytest.mark.parametrize("name", ["JPEG and ZIP", "PNG and page", "WebP and PDF", "two JPEGs in one"])
def test_serving_sees_only_the_picture_of_a_polyglot(name: str) -> None:
    assert decode_rgb(QUARANTINED[name][1]()).size == (60, 80)
