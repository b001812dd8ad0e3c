"""What a parquet file from outside may unfold to: one megabyte can hold a hundred gigabytes of repeated text.

Parquet keeps a repeated value once, in a dictionary. Read as such, a file can be measured in the memory it has on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from data.params import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

T = TypeVar("T")
MAX_FIELD = 1 << 24  # characters of one field; up to this it is a rule's to judge, beyond it no catalog text
MAX_ROWS = 50_000_000
ALWAYS = 1_000_000_000  # bytes that any file may unfold to
TIMES = 20  # and how many times its own size a larger one may
BATCH = 1 << 14  # rows measured at a time


def guarded(read: Callable[[], T], name: str) -> T:
    """`read()`. Raises `UserError` naming the parquet file `name` for whatever Arrow says of a damaged one."""
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        words = " ".join(str(error).split())[:120]
        raise UserError(f"{name}: not a readable parquet file, it may be cut off ({words}); copy it again.") from None


def check_parquet(path: Path, name: str, columns: Sequence[str]) -> None:
    """Raise `UserError` if reading `columns` would take far more memory than the file's size lets expect.

    Takes the memory of one page and one batch.
    """
    guarded(lambda: _check(path, name, columns), name)


def _check(path: Path, name: str, columns: Sequence[str]) -> None:
    limit = max(ALWAYS, TIMES * path.stat().st_size)
    with _coded(path, columns) as file:
        if file.metadata.num_rows > MAX_ROWS:
            rows = file.metadata.num_rows
            raise UserError(f"{name}: claims {rows:,} rows, more than {MAX_ROWS:,}; land it as several drops.")
        size = 0
        for batch in file.iter_batches(BATCH, columns=list(columns)):
            batch.validate(full=True)  # a damaged index would else be followed to anywhere
            size += sum(map(_unfolded, batch.columns))
            if size > limit:
                raise UserError(
                    f"{name}: a parquet bomb, {path.stat().st_size:,} bytes that unfold to more than {limit:,}; "
                    "land it as several drops."
                )


def _coded(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """The file, with those of `columns` that hold text or bytes to be read as dictionaries."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as plain:
        leaves = [plain.schema.column(i) for i in range(len(plain.schema))]
    coded = [leaf.path for leaf in leaves if leaf.path in columns and leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(path, read_dictionary=coded, pre_buffer=False)


def _unfolded(values: pa.Array) -> int:
    """Bytes of a column when every value is written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(values.type):
        return values.nbytes
    return pc.sum(pc.binary_length(values.dictionary).take(values.indices)).as_py() or 0
