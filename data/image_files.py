"""What JPEG, PNG and WebP files say of themselves, read from their structure without a decoder.

Formats: ITU-T T.81 annex B (JPEG markers), PNG 3rd edition section 5 (chunks), RFC 9649 section 2 (WebP).
"""

from __future__ import annotations

import re

# The next marker of a JPEG: neither a stuffed or restart byte of its coded data, nor filler, nor the start of image.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_PADDING = b"\0\t\n\r "


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a WebP file, None if `data` is none.

    Pillow's reader hands the file to libwebp, which allocates the canvas, before Pillow itself can look at the size.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return 1 + _number(data[24:27]), 1 + _number(data[27:30])
        case b"VP8L":
            bits = _number(data[21:25])
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return _number(data[26:28]) & 0x3FFF, _number(data[28:30]) & 0x3FFF
    return None


def trailing(data: bytes) -> bytes:
    """What a file holds after the end of its picture, padding aside: empty for one that is nothing but a picture."""
    if data[:2] == b"\xff\xd8":
        end = _jpeg_end(data)
    elif data[:4] == b"RIFF":
        size = _number(data[4:8])
        end = 8 + size + size % 2
    else:
        end = _png_end(data)
    return data[end:].strip(_PADDING)


def _jpeg_end(data: bytes) -> int:
    at = 2
    while found := _MARKER.search(data, at):
        at = found.end()
        if found[0] == b"\xff\xd9":
            return at
        at += max(2, int.from_bytes(data[at : at + 2]))
    return len(data)


def _png_end(data: bytes) -> int:
    at, kind = 8, b""
    while at < len(data) and kind != b"IEND":
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4])
    return at


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
