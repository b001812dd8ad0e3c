"""Read one drop: a folder with one table (csv, jsonl or parquet) and its pictures in folders, tars or parquet shards.

A table may come as several parquet files with the same columns, or as the json members of WebDataset tars. A drop that
cannot be trusted as a whole (unreadable file, missing column, paths that lead outside, an image bomb) is refused whole
with one `UserError`, before anything is written. A row that cannot be used is left to validation.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import drop_images, drop_shards, drop_sources, drop_tables, drop_webdataset, mapping, schema
from data.drop_images import Pictures, Place
from data.drop_tables import Table
from data.mapping import CatalogMapping
from data.params import UserError, canonical_hash
from data.record import hash_file

ID_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A drop as found: its table as text, and for every row where its picture is (None: there is none)."""

    name: str
    content_hash: str
    mapping: CatalogMapping
    table: Table
    places: Sequence[Place | None]
    files: Mapping[Path, tuple[int, int]]

    @property
    def drop_id(self) -> str:
        return self.content_hash[:ID_DIGITS]

    def __len__(self) -> int:
        return len(self.table.lines)

    def where(self, index: int) -> str:
        """`drop/catalog.csv line 17`: how messages name a row."""
        return self.table.where(int(self.table.lines[index]))

    def check_unchanged(self) -> None:
        """Raise `UserError` if a file was written since it was read: the drop was still arriving."""
        for file, before in self.files.items():
            if not file.exists() or _state(file) != before:
                raise UserError(f"{file}: changed while it was read; land the drop again when it has fully arrived.")


def read_drop(path: Path, catalog: CatalogMapping | None = None, content_hash: str = "") -> Drop:
    """The drop in the folder `path`; pictures are found but not decoded. Raises `UserError` to refuse it whole.

    Args:
        catalog: how to read its table; by default as its own mapping.yaml says.
        content_hash: that of its files, if it is known already.
    """
    content_hash = content_hash or hash_drop(path)
    files = {file: _state(file) for file in _files(path)}
    called = path.resolve().name
    names = {file: f"{called}/{file.relative_to(path).as_posix()}" for file in files}
    if not files:
        raise UserError(f"{path}: the drop is empty; it needs a table (csv, jsonl or parquet) and its pictures.")
    catalog = catalog or mapping.mapping_of(path)
    tables, shards = _sort_files(path, names, catalog)
    if tables:
        table = drop_tables.table_of([drop_sources.read(file, names[file], catalog) for file in tables], catalog)
        pictures = _pictures(path, names, {*tables, path / mapping.FILE}, shards)
        places = _places(table, pictures, {file.relative_to(path).as_posix() for file in files})
    else:
        table, places = _webdataset(path, names, catalog)
    return Drop(
        name=called, content_hash=content_hash, mapping=catalog, table=table, places=places, files=files
    )  # fmt: skip


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
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted([*names, *folders]):
            entry = Path(folder, name)
            if is_hidden(name):
                continue
            target = Path(os.path.realpath(entry))  # unlike `resolve`, no error for a link that leads back to itself
            if entry.is_symlink() and (name in folders or not target.is_relative_to(root)):
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


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a drop."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db")


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _sort_files(path: Path, names: Mapping[Path, str], catalog: CatalogMapping) -> tuple[list[Path], list[Path]]:
    """(the table's files, the shards).

    A parquet file with image bytes is a shard, and also the table where no other file is. Several parquet files make up
    one table if they have the same columns. No table: it may be in WebDataset tars.
    """
    tables: list[Path] = []
    shards: list[Path] = []
    headers: list[tuple[str, ...]] = []
    shard_headers: list[tuple[str, ...]] = []
    for file, name in names.items():
        suffix = file.suffix.lower()
        if suffix == ".parquet":
            columns = drop_sources.parquet_columns(file, name)
            pictured = drop_images.is_shard(columns)
            (shards if pictured else tables).append(file)
            (shard_headers if pictured else headers).append(tuple(columns.names))
        elif suffix in drop_sources.SUFFIXES:
            tables.append(file)
            headers.append((name,))
    if not tables and any({*catalog.find_columns(header)} - {"id", schema.IMAGE} for header in shard_headers):
        tables, headers = shards, shard_headers
    if len(set(headers)) > 1:
        found = ", ".join(names[file] for file in tables)
        raise UserError(f"{path}: more than one table ({found}); a drop has one. Land them as two drops.")
    return tables, shards


def _webdataset(
    path: Path, names: Mapping[Path, str], catalog: CatalogMapping
) -> tuple[Table, list[Place | None]]:  # fmt: skip
    tars = [file for file in names if file.suffix.lower() == ".tar"]
    parts, found = drop_webdataset.read_tars(tars, names, catalog)
    if not parts:
        raise UserError(
            f"{path}: no table found; a drop needs one csv, jsonl or parquet file that lists its products, or tars "
            "whose json members do."
        )
    table = drop_tables.table_of(parts, catalog)
    return table, [found[line - 1] for line in table.lines.tolist()]


def _pictures(path: Path, names: Mapping[Path, str], other: set[Path], shards: Sequence[Path]) -> Pictures:
    pictures, spool = Pictures(), drop_shards.Spool()
    for file, name in names.items():
        if file in shards:
            drop_shards.add_shard(pictures, file, name, spool)
        elif file.suffix.lower() == ".tar":
            drop_images.add_tar(pictures, file, name)
        elif file not in other:
            drop_images.add_file(pictures, file, file.relative_to(path).as_posix())
    return pictures


def _places(table: Table, pictures: Pictures, files: set[str]) -> list[Place | None]:
    places: list[Place | None] = []
    for batch in drop_tables.batches(table.rows):
        blank = [""] * len(batch)
        ids, images, shards = (
            batch[name].to_pylist() if name in batch.column_names else blank
            for name in ("id", schema.IMAGE, schema.SHARD)
        )
        for product, image, shard in zip(ids, images, shards, strict=True):
            where = functools.partial(table.where, int(table.lines[len(places)]))
            if image and not drop_images.is_safe(image):
                raise UserError(
                    f"{where()}, `image`: {image[:200]!r} leads out of the drop; give a path below the drop's folder."
                )
            if shard and shard not in files:
                raise UserError(
                    f"{where()}, `shard`: {shard[:200]!r} is not in the drop; it did not arrive whole. Send it again."
                )
            try:
                places.append(pictures.find(product, image))
            except UserError as error:
                raise UserError(f"{where()}: {error}") from None
    return places
