"""Hostile tars and archives: refused whole with the member and the cure; nothing is ever unpacked or followed."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small_drops import Built, build, jpeg, tree

from data import reports
from data.drops import read_drop
from data.land import land
from data.params import UserError

BLOCK = 512


def member(name: str, data: bytes = b"", type: bytes = tarfile.REGTYPE, target: str = "", **pax: str) -> bytes:
    """One member as it lies in a tar, header and content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = type, target, len(data), pax
    padding = bytes(-len(data) % BLOCK)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + padding


def forged(name: str, size: bytes, type: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose size field (12 bytes) is as given, its checksum right."""
    header = bytearray(member(name, type=type)[:BLOCK])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def base256(size: int) -> bytes:
    """GNU tar's form of sizes beyond 8 GiB, and of negative ones."""
    return struct.pack(">BBBB", 0xFF if size < 0 else 0x80, *(3 * [0xFF if size < 0 else 0])) + struct.pack(">q", size)


def sparse() -> bytes:
    """GNU's old form: 4 bytes that stand for a terabyte."""
    header = bytearray(member("00007.jpg", b"data", tarfile.GNUTYPE_SPARSE))
    header[386:410] = b"00000000000\0" + b"00000000004\0"
    header[483:495] = base256(1 << 40)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK])
    return bytes(header)


def packed(*members: bytes) -> bytes:
    return b"".join(members) + bytes(2 * BLOCK)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("00007.jpg", jpeg())
    return stream.getvalue()


GOOD = member("00007.jpg", jpeg(7))
END = bytes(2 * BLOCK)
HUGE = 1 << 60
LONG = "x" * 3_000_000  # a name, in a header of three megabytes
UP = "../" * 60 + "x.jpg"
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(HUGE)}
OUTSIDE = ["points outside the drop", "pack plain relative paths"]
PLAIN = ["is a link, a device or sparse", "pack plain files only"]
RENAME = ["rename it with plain characters"]
CLAIMS = ["a header claims", "send it again"]
NO_TAR = ["not a readable plain tar", "send it again, uncompressed"]
PACKED = ["a compressed archive is not opened", "send its files"]
TARS: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "traversal": (lambda: packed(member("../../x.jpg", b"x")), ["'../../x.jpg'", *OUTSIDE]),
    "traversal within a path": (lambda: packed(member("a/../../x.jpg", b"x")), ["'a/../../x.jpg'", *OUTSIDE]),
    "absolute name": (lambda: packed(member("/etc/passwd", b"x")), ["'/etc/passwd'", *OUTSIDE]),
    "drive letter": (lambda: packed(member("C:x.jpg", b"x")), ["'C:x.jpg'", *OUTSIDE]),
    "backslashes": (lambda: packed(member("..\\x.jpg", b"x")), OUTSIDE),
    "traversal in a pax header": (lambda: packed(member("x.jpg", b"x", path=UP)), OUTSIDE),
    "symbolic link": (lambda: packed(member("x.jpg", b"", tarfile.SYMTYPE, "/etc/passwd")), ["'x.jpg'", *PLAIN]),
    "hard link": (lambda: packed(GOOD, member("x.jpg", b"", tarfile.LNKTYPE, "00007.jpg")), ["'x.jpg'", *PLAIN]),
    "character device": (lambda: packed(member("x.jpg", b"", tarfile.CHRTYPE)), PLAIN),
    "block device": (lambda: packed(member("x.jpg", b"", tarfile.BLKTYPE)), PLAIN),
    "pipe": (lambda: packed(member("x.jpg", b"", tarfile.FIFOTYPE)), PLAIN),
    "sparse file": (lambda: packed(sparse()), PLAIN),
    "sparse file in a pax header": (lambda: packed(member("x.jpg", b"1\n0\n1\n" + bytes(506), **SPARSE)), PLAIN),
    "size beyond the file": (lambda: forged("x.jpg", base256(HUGE)) + END, ["cut off within", "'x.jpg'"]),
    "negative size": (lambda: GOOD + forged("x.jpg", base256(-BLOCK)) + END, ["a.tar"]),
    "negative size that loops": (lambda: GOOD + forged("x.jpg", base256(-2 * BLOCK)) + END, ["a.tar"]),
    "negative size in a pax header": (lambda: packed(member("x.jpg", b"x", size="-1024")), ["a.tar"]),
    "huge pax header": (lambda: forged("x", base256(1 << 40), tarfile.XHDTYPE) + END, CLAIMS),
    "huge long name": (lambda: forged("x", base256(1 << 40), tarfile.GNUTYPE_LONGNAME) + END, CLAIMS),
    "long name of three megabytes": (lambda: packed(member("x.jpg", b"x", path=LONG)), CLAIMS),
    "name with an escape": (lambda: packed(member("\x1b[2J.jpg", b"x")), RENAME),
    "name with a direction mark": (lambda: packed(member("a\u202egpj.exe", b"x")), RENAME),
    "name that is not UTF-8": (lambda: packed(member("\udcff.jpg", b"x")), RENAME),
    "two members of one name": (lambda: packed(GOOD, member("00007.jpg", jpeg(8))), ["two pictures", "keep one"]),
    "no end": (lambda: GOOD, ["cut off after 1 members", "send the tar again"]),
    "cut off in a header": (lambda: GOOD[:300], NO_TAR),
    "cut off in a member": (lambda: GOOD[:1000], ["cut off within", "send the tar again"]),
    "gzip bomb called a tar": (lambda: gzip.compress(bytes(100_000_000)), NO_TAR),
    "zip called a tar": (zipped, NO_TAR),
}
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a.tar.gz": lambda: gzip.compress(packed(GOOD)), "a.TGZ": lambda: gzip.compress(packed(GOOD)), "a.zip": zipped,
    "a.tar.zst": lambda: b"\x28\xb5\x2f\xfd", "a.7z": lambda: b"7z",
}  # fmt: skip
REFUSED = {name: ("a.tar", *rest) for name, rest in TARS.items()}
REFUSED |= {f"compressed archive {name}": (name, make, [name, *PACKED]) for name, make in ARCHIVES.items()}


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What reading a drop imports is no part of what a hostile one takes."""
    read_drop(build().write(tmp_path_factory.mktemp("good") / "drop"))


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_archive_refuses_the_drop(built: Built, tmp_path: Path, name: str) -> None:
    file, make, words = REFUSED[name]
    built.images.clear()
    folder = built.write(tmp_path / "drop")
    (folder / file).write_bytes(make())
    before = tree(tmp_path)
    begun, message = time.monotonic(), ""
    tracemalloc.start()
    try:
        read_drop(folder)
    except UserError as error:
        message = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert time.monotonic() - begun < 5
    assert [word for word in words if word not in message] == []
    assert message == reports.visible(message).replace("\n", " ")
    assert tree(tmp_path) == before


def test_a_refused_archive_leaves_no_trace_of_a_landing(repository: Path, tmp_path: Path) -> None:
    folder = build().write(tmp_path / "drop")
    (folder / "more.tar").write_bytes(packed(member("x.jpg", b"", tarfile.SYMTYPE, "/etc/passwd")))
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"more\.tar: member 'x\.jpg' is a link"):
        land([folder])
    assert tree(tmp_path) == before


def test_a_tar_is_read_where_it_lies(built: Built, tmp_path: Path) -> None:
    """Folders, GNU and pax names and sizes are plain tar; pictures are found in them and nothing is unpacked."""
    path = "deep/" * 40 + "00008.jpg"
    content = packed(
        member("images", type=tarfile.DIRTYPE), member("./images/00007.jpg", jpeg(7)), member(path, jpeg(8)),
        member("00009.jpg", jpeg(9), mtime="1.5", comment="x"),
    )  # fmt: skip
    built.images.clear()
    del built.rows[3:]
    built.rows[1]["image"] = path
    folder = built.write(tmp_path / "drop")
    (folder / "a.tar").write_bytes(content)
    before = tree(tmp_path)
    places = read_drop(folder).places
    assert [place and place.read() for place in places] == [jpeg(7), jpeg(8), jpeg(9)]
    assert tree(tmp_path) == before


def test_members_that_differ_by_case_or_unicode_form_are_different(built: Built, tmp_path: Path) -> None:
    """Names are matched exactly, so neither stands for the other."""
    names = ["a.jpg", "A.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg"]
    built.images.clear()
    del built.rows[len(names) :]
    for row, name in zip(built.rows, names, strict=True):
        row["image"] = name
    folder = built.write(tmp_path / "drop")
    (folder / "a.tar").write_bytes(packed(*(member(name, jpeg(i)) for i, name in enumerate(names))))
    assert [place and place.read() for place in read_drop(folder).places] == [jpeg(i) for i in range(4)]


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "link out": (lambda f: (f / "x.jpg").symlink_to("/etc/hostname"), "leads out of the drop"),
    "folder link": (lambda f: (f / "more").symlink_to("/etc"), "leads out of the drop"),
    "link to its folder": (lambda f: (f / "self").symlink_to("."), "to a folder"),
    "link to itself": (lambda f: (f / "loop.jpg").symlink_to("loop.jpg"), "a link to nothing"),
    "link to nothing": (lambda f: (f / "gone.jpg").symlink_to("nothing.jpg"), "a link to nothing"),
    "pipe": (lambda f: os.mkfifo(f / "x.jpg"), "not a regular file"),
    "name with an escape": (lambda f: (f / "a\x1b[2J.jpg").touch(), "rename it with plain characters"),
    "name with a direction mark": (lambda f: (f / "a\u202egpj.exe").touch(), "rename it with plain characters"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_refuse_the_drop(built: Built, tmp_path: Path, name: str) -> None:
    make, words = FILES[name]
    folder = built.write(tmp_path / "drop")
    make(folder)
    with pytest.raises(UserError, match=words) as caught:
        read_drop(folder)
    assert str(caught.value) == reports.visible(str(caught.value))


def test_a_link_within_the_drop_is_the_file_it_leads_to(built: Built, tmp_path: Path) -> None:
    folder = built.write(tmp_path / "drop")
    (folder / "images" / "00007.jpg").unlink()
    (folder / "images" / "00007.jpg").symlink_to("00008.jpg")
    place = read_drop(folder).places[0]
    assert place is not None
    assert place.read() == built.images["00008.jpg"]
