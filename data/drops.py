"""Read one drop: a folder with one table (csv, jsonl or parquet) and its pictures in folders, tars or parquet shards.

A drop that cannot be trusted as a whole (unreadable file, missing column, paths that lead outside, an image bomb) is
refused whole with one `UserError`, before anything is written. A row that cannot be used is left to validation.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data import drop_images, drop_tables, schema
from data.drop_images import Pictures, Place
from data.drop_tables import Table
from data.params import UserError, canonical_hash
from data.record import hash_file

ID_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A drop as found: its table as text, and for every row where its picture is (None: there is none)."""

    name: str
    content_hash: str
    table: Table
    places: list[Place | None]
    files: dict[Path, tuple[int, int]]

    @property
    def drop_id(self) -> str:
        return self.content_hash[:ID_DIGITS]

    def __len__(self) -> int:
        return len(self.table.lines)

    def where(self, index: int) -> str:
        """`drop/catalog.csv line 17`: how messages name a row."""
        return f"{self.table.name} line {self.table.lines[index]}"

    def check_unchanged(self) -> None:
        """Raise `UserError` if a file was written since it was read: the drop was still arriving."""
        for file, before in self.files.items():
            if not file.exists() or _state(file) != before:
                raise UserError(f"{file}: changed while it was read; land the drop again when it has fully arrived.")


def read_drop(path: Path) -> Drop:
    """The drop in the folder `path`; pictures are found but not decoded. Raises `UserError` to refuse it whole."""
    content_hash = hash_drop(path)
    files = {file: _state(file) for file in _files(path)}
    called = path.resolve().name
    names = {file: f"{called}/{file.relative_to(path).as_posix()}" for file in files}
    if not files:
        raise UserError(f"{path}: the drop is empty; it needs a table (csv, jsonl or parquet) and its pictures.")
    table_file, shards = _sort_parquet(path, names)
    table = drop_tables.read_table(table_file, names[table_file])
    pictures = _pictures(path, names, table_file, shards)
    places = _places(table, pictures, {file.relative_to(path).as_posix() for file in files})
    return Drop(name=called, content_hash=content_hash, table=table, places=places, files=files)


def hash_drop(path: Path) -> str:
    """SHA-256 over the names and contents of a drop's files; the folder's own name and the order do not matter."""
    try:
        return canonical_hash(sorted([file.relative_to(path).as_posix(), hash_file(file)] for file in _files(path)))
    except OSError as error:  # no permission, a failing disk
        raise UserError(
            f"{error.filename or path}: cannot be read ({error.strerror}); mend it and land again."
        ) from None


def _files(path: Path) -> Iterator[Path]:
    """Every file of the drop but hidden ones. Raises `UserError` for links that lead outside, devices and pipes."""
    if not path.is_dir():
        found = "is a file" if path.exists() else "not found"
        raise UserError(f"{path}: {found}; a drop is a folder with a table and its pictures.")
    root = path.resolve()
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted([*names, *folders]):
            entry = Path(folder, name)
            if _hidden(name):
                continue
            if entry.is_symlink() and (name in folders or not entry.resolve().is_relative_to(root)):
                raise UserError(f"{entry}: a link that leads out of the drop or to a folder; put the files themselves.")
            if name in folders:
                continue
            if not name.isprintable():  # undecodable bytes among them
                raise UserError(f"{folder}: a file is called {name!r}; rename it with plain characters.")
            if not entry.exists():
                raise UserError(f"{entry}: a link to nothing; put the file itself.")
            if not stat.S_ISREG(entry.stat().st_mode):
                raise UserError(f"{entry}: not a regular file; a drop holds plain files only.")
            yield entry


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db")


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _sort_parquet(path: Path, names: dict[Path, str]) -> tuple[Path, list[Path]]:
    """(the table, the shards): a parquet file with a title column is the table, one with image bytes is a shard."""
    tables, shards = [], []
    for file, name in names.items():
        suffix = file.suffix.lower()
        if suffix == ".parquet":
            columns = drop_tables.parquet_columns(file, name)
            if drop_images.is_shard(columns):
                shards.append(file)
            if "title" in schema.find_columns(columns.names) or not drop_images.is_shard(columns):
                tables.append(file)
        elif suffix in drop_tables.SUFFIXES:
            tables.append(file)
    if not tables:
        raise UserError(f"{path}: no table found; a drop needs one csv, jsonl or parquet file that lists its products.")
    if len(tables) > 1:
        found = ", ".join(names[file] for file in tables)
        raise UserError(f"{path}: more than one table ({found}); a drop has one. Land them as two drops.")
    return tables[0], shards


def _pictures(path: Path, names: dict[Path, str], table: Path, shards: list[Path]) -> Pictures:
    pictures = Pictures()
    for file, name in names.items():
        if file in shards:
            drop_images.add_shard(pictures, file, name)
        elif file.suffix.lower() == ".tar":
            drop_images.add_tar(pictures, file, name)
        elif file != table:
            drop_images.add_file(pictures, file, file.relative_to(path).as_posix())
    return pictures


def _places(table: Table, pictures: Pictures, files: set[str]) -> list[Place | None]:
    blank = [""] * len(table.lines)
    images, shards = (table.columns.get(name, blank) for name in (schema.IMAGE, schema.SHARD))
    places = []
    for product, image, shard, line in zip(table.columns["id"], images, shards, table.lines, strict=True):
        where = f"{table.name}: line {line}"
        if image and not drop_images.is_safe(image):
            raise UserError(f"{where}, `image`: {image!r} leads out of the drop; give a path below the drop's folder.")
        if shard and shard not in files:
            raise UserError(f"{where}, `shard`: {shard!r} is not in the drop; it did not arrive whole. Send it again.")
        try:
            places.append(pictures.find(product, image))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return places
