"""Find the pictures of a drop: files in folders, members of tars, rows of parquet shards. Nothing is unpacked.

A picture is found by the path that the table's `image` column gives, or else by the product's id: a file or tar member
of that name (`12345.jpg`), or a row of a parquet shard.
"""

from __future__ import annotations

import mimetypes
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from data import schema
from data.drop_tables import parquet_columns, read_parquet
from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 512  # of a tar


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


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a parquet shard's `image` column."""

    column: pa.ChunkedArray
    index: int

    @property
    def size(self) -> int:
        return len(self.column[self.index].as_buffer())

    def read(self) -> bytes:
        return self.column[self.index].as_py()


@dataclass
class Pictures:
    """All pictures of a drop, by path and by id. An id that fits two pictures is an error when it is asked for."""

    by_path: dict[str, Place] = field(default_factory=dict)
    by_id: dict[str, tuple[Place, str]] = field(default_factory=dict)
    _twice: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add_path(self, path: str, place: Place, where: str) -> None:
        self.by_path.setdefault(path, place)
        if (mimetypes.guess_type(path)[0] or "").startswith("image/"):
            self.add_id(PurePosixPath(path).stem, place, where)

    def add_id(self, key: str, place: Place, where: str) -> None:
        if key in self.by_id:
            self._twice[key] = (self.by_id[key][1], where)
        else:
            self.by_id[key] = (place, where)

    def find(self, product: str, path: str) -> Place | None:
        """The picture of a product, or None. Raises `UserError` if two fit equally well."""
        for candidate in (path, f"images/{path}") if path else ():
            if candidate in self.by_path:
                return self.by_path[candidate]
        if product in self._twice:
            one, other = self._twice[product]
            raise UserError(f"product {product!r} has two pictures, {one} and {other}; keep one of them.")
        return self.by_id[product][0] if product in self.by_id else None


def add_file(pictures: Pictures, file: Path, name: str) -> None:
    """A loose file, image or not: the table may name it."""
    pictures.add_path(name, Span(file, 0, file.stat().st_size), name)


def add_shard(pictures: Pictures, file: Path, name: str) -> None:
    """A parquet file with an id and an `image` column of bytes."""
    id_column = schema.find_columns(parquet_columns(file, name).names)["id"]
    table = read_parquet(file, name, [id_column, schema.IMAGE])
    images = table[schema.IMAGE]
    valid = images.is_valid().to_pylist()
    for index, key in enumerate(table[id_column].to_pylist()):
        if valid[index]:
            pictures.add_id(str(key), Cell(images, index), name)


def add_tar(pictures: Pictures, file: Path, name: str) -> None:
    """A plain tar of image files, as WebDataset writes them. Raises `UserError` for an unsafe or cut-off one."""
    try:
        with tarfile.open(file, mode="r:") as archive:
            members = archive.getmembers()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{name}: not a readable plain tar ({error}); send it again, uncompressed.") from None
    end = file.stat().st_size
    for member in members:
        if not is_safe(member.name):
            raise UserError(f"{name}: member {member.name!r} points outside the drop; pack plain relative paths.")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise UserError(f"{name}: member {member.name!r} is a link, a device or sparse; pack plain files only.")
        if member.offset_data + member.size > end:
            raise UserError(f"{name}: cut off within member {member.name!r}; send the tar again.")
        place = Span(file, member.offset_data, member.size)
        pictures.add_path(str(PurePosixPath(member.name)), place, f"{name}:{member.name}")
    _check_end(file, name, members)


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


def _check_end(file: Path, name: str, members: list[tarfile.TarInfo]) -> None:
    """A complete tar ends with a zero block after its last member; a download cut off between members does not."""
    last = max((m.offset_data + -(-m.size // BLOCK) * BLOCK for m in members), default=0)
    with file.open("rb") as stream:
        stream.seek(last)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise UserError(f"{name}: cut off after {len(members)} members; send the tar again.")
