"""Pictures in parquet shards: read once from end to end into a file of their own, and found there at random.

A shard's pictures cannot be read one by one (a row group may hold a gigabyte of them), and the table need not list
them in the shard's order. The file has no name, so it is gone when the process ends, however that happens; it takes as
much room below `TMPDIR` as the pictures do.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data import schema
from data.drop_images import Pictures
from data.drop_sources import parquet_columns
from data.hostile import check_parquet, guarded
from data.params import UserError

MEMORY = 1 << 25  # bytes of pictures held at a time, on average
BATCH = 1024  # and at most this many of them
BUFFER = 1 << 20  # bytes of a shard read ahead


class Spool:
    """Bytes written one after the other to an unnamed file, and read back from anywhere in it by any thread."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the last picture that lies in it
        self._end = 0

    def add(self, images: list[bytes]) -> list[Slot]:
        slots = []
        try:
            for image in images:
                self._file.write(image)
                slots.append(Slot(self, self._end, len(image)))
                self._end += len(image)
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no room for the pictures of parquet shards ({error.strerror}); free some, "
                "or set TMPDIR to a folder with more."
            ) from None
        return slots

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)


@dataclass(frozen=True, slots=True)
class Slot:
    """One picture in the spool."""

    spool: Spool
    offset: int
    size: int

    def read(self) -> bytes:
        return self.spool.read(self.offset, self.size)


def add_shard(pictures: Pictures, file: Path, name: str, spool: Spool) -> None:
    """A parquet file with an id and an `image` column of bytes.

    Raises `UserError` if it is cut off or damaged, or unfolds to far more than it holds.
    """
    columns = [schema.find_columns(parquet_columns(file, name).names)["id"], schema.IMAGE]
    check_parquet(file, name, columns)
    guarded(lambda: _add_rows(pictures, file, name, spool, columns), name)


def _add_rows(pictures: Pictures, file: Path, name: str, spool: Spool, columns: list[str]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as shard:
        mean = file.stat().st_size // max(1, shard.metadata.num_rows)
        for batch in shard.iter_batches(max(1, min(BATCH, MEMORY // max(1, mean))), columns=columns):
            batch.validate(full=True)
            ids, images = (batch.column(column).to_pylist() for column in columns)
            there = [(key, image) for key, image in zip(ids, images, strict=True) if image is not None]
            slots = spool.add([image for _, image in there])
            for (key, _), slot in zip(there, slots, strict=True):
                pictures.add_id(str(key), slot, name)
