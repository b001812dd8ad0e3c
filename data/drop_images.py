"""Find the pictures of a drop: files in folders, members of tars, rows of parquet shards. Nothing is unpacked.

A picture is found by the path that the table's `image` column gives, or else by the product's id: a file or tar member
of that name (`12345.jpg`), or a row of a parquet shard. Names are compared exactly: `A.jpg` is not `a.jpg`.
"""

from __future__ import annotations

import io
import mimetypes
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from data import schema
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 512  # of a tar
HEADER = 1 << 20  # bytes that a tar's headers may ask for at once: far more than any name needs
PACKED = (".7z", ".bz2", ".gz", ".lz4", ".rar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst")


class Place(Protocol):
    """Where one picture's bytes are."""

    @property
    def size(self) -> int: ...
    def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Span:
    """`size` bytes of a file, from `offset`: a whole image file, or one member of a tar."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


class Names:
    """Places by name. A name that two places have is an error when it is asked for."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Place, str]] = {}
        self._again: dict[str, str] = {}

    def add(self, name: str, place: Place, where: str) -> None:
        if name in self._first:
            self._again[name] = where
        else:
            self._first[name] = (place, where)

    def find(self, name: str, product: str) -> Place | None:
        if name in self._again:
            one, other = self._first[name][1], self._again[name]
            raise UserError(f"product {product!r} has two pictures, {one} and {other}; keep one of them.")
        return self._first[name][0] if name in self._first else None


@dataclass
class Pictures:
    """All pictures of a drop, by path and by id."""

    by_path: Names = field(default_factory=Names)
    by_id: Names = field(default_factory=Names)

    def add_path(self, path: str, place: Place, where: str) -> None:
        self.by_path.add(path, place, where)
        if (mimetypes.guess_type(path)[0] or "").startswith("image/"):
            self.add_id(PurePosixPath(path).stem, place, where)

    def add_id(self, key: str, place: Place, where: str) -> None:
        self.by_id.add(key, place, where)

    def find(self, product: str, path: str) -> Place | None:
        """The picture of a product, or None. Raises `UserError` if two fit equally well."""
        for candidate in (path, f"images/{path}") if path else ():
            if found := self.by_path.find(candidate, product):
                return found
        return self.by_id.find(product, product)


def add_file(pictures: Pictures, file: Path, name: str) -> None:
    """A loose file, image or not: the table may name it. Raises `UserError` for an archive that would stay shut."""
    if file.suffix.lower() in PACKED:
        raise UserError(f"{name}: a compressed archive is not opened; send its files, or pack them as a plain tar.")
    pictures.add_path(name, Span(file, 0, file.stat().st_size), name)


def add_tar(pictures: Pictures, file: Path, name: str) -> None:
    """A plain tar of image files, as WebDataset writes them. Raises `UserError` for an unsafe or cut-off one."""
    last = count = 0
    end = file.stat().st_size
    for member in _members(file, name):
        if not is_safe(member.name):
            raise UserError(f"{name}: member {member.name!r} points outside the drop; pack plain relative paths.")
        if not member.name.isprintable():
            raise UserError(f"{name}: a member is called {member.name!r}; rename it with plain characters.")
        if not (member.isdir() or member.isreg()) or member.issparse():
            raise UserError(f"{name}: member {member.name!r} is a link, a device or sparse; pack plain files only.")
        if not 0 <= member.size <= end - member.offset_data:
            raise UserError(
                f"{name}: cut off within member {member.name!r} ({member.size:,} bytes); send the tar again."
            )
        count, last = count + 1, member.offset_data + (-(-member.size // BLOCK) * BLOCK if member.isreg() else 0)
        if member.isreg():
            place = Span(file, member.offset_data, member.size)
            pictures.add_path(str(PurePosixPath(member.name)), place, f"{name}:{member.name}")
    _check_end(file, name, last, count)


class _Headers(io.BufferedReader):
    """A tar's headers: asking for more than any of them needs is a forged size, not a name."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= HEADER:
            raise ValueError(f"a header claims {size:,} bytes")
        return super().read(size)


def _members(file: Path, name: str) -> Iterator[tarfile.TarInfo]:
    """The members in turn, so that a forged size is met before it is followed."""
    with _Headers(io.FileIO(file)) as stream:
        try:
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 the stream is what needs closing
            while member := archive.next():
                yield member
        except Exception as error:  # tarfile raises whatever damaged headers lead it to
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{name}: not a readable plain tar ({words}); send it again, uncompressed.") from None


def is_shard(columns: pa.Schema) -> bool:
    """Whether a parquet file holds pictures: an id and an `image` column of bytes."""
    import pyarrow as pa

    if schema.IMAGE not in columns.names or "id" not in schema.find_columns(columns.names):
        return False
    kind = columns.field(schema.IMAGE).type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_safe(path: str) -> bool:
    """Whether `path` is relative, stays below its folder, and means the same on every system."""
    if not path or path.startswith("/") or any(sign in path for sign in ("\\", "\0", ":")):
        return False
    return ".." not in PurePosixPath(path).parts


def _check_end(file: Path, name: str, last: int, count: int) -> None:
    """A complete tar ends with a zero block after its last member; a download cut off between members does not."""
    with file.open("rb") as stream:
        stream.seek(last)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise UserError(f"{name}: cut off after {count} members; send the tar again.")
