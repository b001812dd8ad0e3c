"""Samples of a drop and of the last dataset, side by side, for data/drift.py.

Pictures and titles are described lightly, without a model: a picture by the mean colours of a 3 x 4 grid, their spread
and the directions of its edges (52 numbers), a title by its words and word pairs, hashed into 64 numbers. That is
enough to see other products, other backgrounds or another way of writing titles, and costs seconds at any size.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data import schema
from data.drift import CATEGORIES, ORIGIN
from data.images import ImageError, decode_rgb, grey_std, in_threads
from data.text import tokens

ROWS = 20_000  # of either side for numbers and categories
TITLES = 600  # of either side
PICTURES = 400  # of either side, decoded
GROUPS = 8  # row groups of the dataset's pictures that are read
WORDS = 64  # numbers that describe a title
GRID = (3, 4)  # columns and rows of a picture's mean colours
EDGES = 8  # directions
NONE = "(none)"  # a category of its own: a catalog that stops giving colours has drifted


def sample(
    dataset: Path, *, drop_id: str, catalog: str, rows: pa.Table, accepted: Sequence[int], read: Callable[[int], bytes]
) -> pd.DataFrame | None:
    """The table of both sides: a feature per column, null where a row was not sampled for it.

    `rows` as in `expectations.frame`; `accepted` are the numbers of those that land, `read` gives a row's picture.
    Of the dataset only products of the same catalog count, and none of this drop's own. None if there are none.
    """
    path = dataset / "products.parquet"
    if not path.is_file():
        return None
    names = pq.read_schema(path).names
    wanted = [name for name in ("drop_id", "catalog", "image_key", "title", "year", *CATEGORIES) if name in names]
    products = pq.read_table(path, columns=wanted).to_pandas()
    if "catalog" in products:
        products = products[products["catalog"] == catalog]
    products = products[products["drop_id"] != drop_id]
    if products.empty or not len(accepted):
        return None
    shown = _stored(dataset / "images.parquet", products["image_key"])
    old = pd.concat([_attributes(_some(products, ROWS)), _pictures(shown)])
    new = _drop_side(rows, np.asarray(accepted), read)
    return pd.concat([new.assign(**{ORIGIN: "drop"}), old.assign(**{ORIGIN: "dataset"})], ignore_index=True)


def _drop_side(rows: pa.Table, accepted: np.ndarray, read: Callable[[int], bytes]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(accepted)[:ROWS])
    names = [name for name in ("title", "year", *CATEGORIES) if name in rows.column_names]
    texts = rows.select(names).take(pa.array(chosen)).to_pandas()
    years = [schema.year(text) for text in texts["year"]]
    texts = texts.astype(object).map(schema.value).assign(year=years)
    shown = np.sort(rng.permutation(accepted)[:PICTURES])
    return pd.concat([_attributes(texts), _pictures([read(int(row)) for row in shown])])


def _attributes(products: pd.DataFrame) -> pd.DataFrame:
    """Features of products: numbers, categories and, of some, the description of their titles."""
    titles = products["title"]
    found = pd.DataFrame({
        "year": pd.to_numeric(products["year"]).astype("float64"),
        "title_length": [float(len(title)) if isinstance(title, str) else None for title in titles],
    }, index=products.index)  # fmt: skip
    for name in CATEGORIES:
        values = products[name] if name in products else pd.Series(None, index=products.index, dtype=object)
        found[name] = values.astype(object).where(values.notna(), NONE)
    described = _some(titles.dropna().to_frame(), TITLES)["title"]
    vectors = np.array([describe_title(title) for title in described]).reshape(-1, WORDS)
    return found.join(pd.DataFrame(vectors, index=described.index, columns=_names("titles", WORDS)))


def _pictures(images: Sequence[bytes]) -> pd.DataFrame:
    facts = [fact for fact in in_threads(_look, images) if fact is not None]
    size = len(describe_picture(np.zeros((12, 12, 3), dtype=np.uint8)))
    columns = ["image_width", "image_height", "image_grey_std", *_names("pictures", size)]
    return pd.DataFrame(np.array(facts).reshape(-1, len(columns)), columns=columns)


def _look(image: bytes) -> list[float] | None:
    try:
        decoded = decode_rgb(image)
    except ImageError:
        return None
    small = np.asarray(decoded.resize((48, 64)))
    return [float(decoded.width), float(decoded.height), grey_std(decoded), *describe_picture(small)]


def describe_picture(pixels: np.ndarray) -> np.ndarray:
    """Numbers for a picture, uint8 (H, W, 3): mean colours of a grid, the colours' spread, directions of edges."""
    values = pixels.astype(np.float64) / 255
    height, width, _ = values.shape
    rows, columns = np.array_split(np.arange(height), GRID[1]), np.array_split(np.arange(width), GRID[0])
    means = [values[np.ix_(row, column)].mean(axis=(0, 1)) for row in rows for column in columns]
    down, right = np.gradient(values.mean(axis=2))
    strength = np.hypot(down, right)
    edges, _ = np.histogram(np.arctan2(down, right), bins=EDGES, range=(-np.pi, np.pi), weights=strength)
    edges = edges / strength.size
    return np.concatenate([*means, values.std(axis=(0, 1)), [strength.mean(), *edges]])


def describe_title(title: str) -> np.ndarray:
    """Words and word pairs of a title, hashed into `WORDS` numbers with signs (the hashing trick), of unit length."""
    words = [token.text for token in tokens(title)]
    found = np.zeros(WORDS)
    for term in (*words, *map(" ".join, itertools.pairwise(words))):
        code = zlib.crc32(term.encode())
        found[code % WORDS] += 1.0 if code & 0x80000000 else -1.0
    length = float(np.linalg.norm(found))
    return found / length if length else found


def _stored(images: Path, keys: pd.Series) -> list[bytes]:
    """Some of the dataset's pictures, from a few row groups: what is read does not grow with the dataset."""
    source = pq.ParquetFile(images)
    wanted = pa.array(keys.unique(), pa.string())
    rng = np.random.default_rng(0)
    groups = np.sort(rng.permutation(source.num_row_groups)[:GROUPS])
    found = list(_of_groups(source, groups, wanted))
    return [found[index] for index in np.sort(rng.permutation(len(found))[:PICTURES])]


def _of_groups(source: pq.ParquetFile, groups: np.ndarray, wanted: pa.Array) -> Iterator[bytes]:
    for group in groups:
        part = source.read_row_group(int(group), columns=["image_key", "jpeg"])
        yield from part.filter(pc.is_in(part["image_key"], value_set=wanted))["jpeg"].to_pylist()


def _some(table: pd.DataFrame, most: int) -> pd.DataFrame:
    return table if len(table) <= most else table.sample(most, random_state=0).sort_index()


def _names(feature: str, size: int) -> list[str]:
    return [f"{feature}_{number:03d}" for number in range(size)]
