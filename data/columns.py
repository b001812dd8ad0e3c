"""What the rules' frame asks of whole columns at once: groups, twins, values per distinct row. All on Arrow arrays.

Texts are `large_string`, so that a million long ones fit into one array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One array, text as `large_string`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) or pa.types.is_null(array.type) else array


def scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def text(rows: pa.Table, name: str) -> pa.Array:
    """A column's texts; empty where the table has none."""
    if name not in rows.column_names:
        return pa.repeat(scalar(""), len(rows))
    return pc.fill_null(plain(rows[name]), scalar(""))


def or_null(texts: pa.Array) -> pa.Array:
    """The texts, null where there is nothing but white space."""
    blank = pc.equal(pc.utf8_trim_whitespace(texts), scalar(""))
    return pc.if_else(blank, pa.scalar(None, texts.type), texts)


def codes(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """(number of each row's value, int64, -1 for null; the distinct values)."""
    found = pc.dictionary_encode(column)
    return pc.fill_null(found.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False), found.dictionary


def group_sizes(column: pa.Array) -> pa.Array:
    """How many rows share each row's value; null for null."""
    number, values = codes(column)
    sizes = np.bincount(number[number >= 0], minlength=max(len(values), 1))
    return pa.array(sizes[number], pa.int64(), mask=number < 0)


def repeated(column: pa.Array) -> pa.Array:
    """Whether each row's value occurs more than once; false for null."""
    found = pc.dictionary_encode(column)
    if len(found.dictionary) == len(column) - column.null_count:
        return pa.repeat(False, len(column))
    number = pc.fill_null(found.indices, len(found.dictionary)).to_numpy(zero_copy_only=False)
    sizes = np.bincount(number, minlength=len(found.dictionary) + 1)
    sizes[-1] = 0
    return pa.array((sizes > 1)[number])


def longer(column: pa.Array, most: int) -> pa.Array:
    """Whether each text has more than `most` characters. Counts them only where the bytes leave a doubt."""
    rows = pc.greater(pc.binary_length(column), most)
    return pc.replace_with_mask(rows, pc.fill_null(rows, False), pc.greater(pc.utf8_length(column.filter(rows)), most))


def distinct_within(key: pa.Array, value: pa.Array) -> pa.Array:
    """How many different values the rows with the same key have, nulls aside; null where there is no key."""
    group, groups = codes(key)
    number, numbers = codes(value)
    both = (group >= 0) & (number >= 0)
    pairs = np.unique(group[both] * max(len(numbers), 1) + number[both])
    sizes = np.bincount(pairs // max(len(numbers), 1), minlength=max(len(groups), 1))
    return pa.array(sizes[group], pa.int64(), mask=group < 0)


def by_unique(columns: Sequence[pa.Array], function: Callable[..., str | None]) -> pa.Array:
    """`function` of every row's texts, called once for each different row."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        number, _ = codes(column)
        _, key = np.unique(key * (number.max(initial=0) + 1) + number, return_inverse=True)
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    distinct = zip(*(column.take(pa.array(first)).to_pylist() for column in columns), strict=True)
    return pa.array([function(*row) for row in distinct], pa.large_string()).take(pa.array(back))


def twins(ids: pa.Array, key: Callable[[str], str]) -> pa.Array:
    """Each row's key where a different id has the same key, else null."""
    number, distinct = codes(ids)
    keys = pa.array([_folded(text, key) for text in distinct.to_pylist()], pa.large_string())
    shared = group_sizes(keys)
    of_id = pc.if_else(pc.greater(shared, 1), keys, pa.scalar(None, keys.type))
    return of_id.take(pa.array(number, mask=number < 0))


def _folded(text: str, key: Callable[[str], str]) -> str:
    return text.lower() if text.isascii() else key(text)  # the same for ASCII, ten times as fast
