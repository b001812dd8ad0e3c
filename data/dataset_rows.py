"""The rows of a dataset: every landed row placed in its split, and what became of each product."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data import schema
from data.families import family_key
from data.params import UserError
from data.splits import Splitter, components, group_rows, split_key
from data.text import title_key

KEY = ["catalog", "id"]  # what makes two rows the same product
TEXT_COLUMNS = (
    "row_id", "drop_id", "catalog", "id", "title", "gender", "master_category", "sub_category", "article_type",
    "base_colour", "season", "year", "usage", "derived_caption", "image_key",
)  # fmt: skip
ROW = "row"  # a row's line in its drop: the order of rows and withdrawals within it
PRODUCTS, WITHDRAWN = "products.parquet", "withdrawn.parquet"
HELD_BACK = pa.schema([
    *((name, pa.string()) for name in ("row_id", "drop_id", "catalog", "id", "title", "image_key")),
    ("because", pa.list_(pa.string())),  # the row's keys that have a split, and these splits
])  # fmt: skip


@dataclass(frozen=True)
class Drop:
    """One accepted drop: its folder and its place in the order of landing."""

    folder: Path
    landed: int

    @property
    def products(self) -> Path:
        return self.folder / PRODUCTS


@dataclass(frozen=True, kw_only=True)
class Products:
    """`rows`: one row per product that there is, with `group`, `family` and `split`, in the order in which they landed.

    `held_back`: landed rows that fit no split, with `because`. `replaced`: rows that a later one took the place of.
    `withdrawn`: products whose latest mention is a withdrawal.
    """

    rows: pd.DataFrame
    held_back: pd.DataFrame
    replaced: int
    withdrawn: int


def landed_drops(folder: Path) -> list[Drop]:
    """The accepted drops under `folder` in the order in which they landed, by the number in their `report.json`."""
    drops = []
    for path in sorted(folder.glob("[!.]*/report.json")):  # a landing under way is hidden
        try:
            landed = int(json.loads(path.read_text(encoding="utf-8"))["landed"])
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}: not a report. Restore it with `dvc checkout`, or land the drop again.") from None
        if (path.parent / PRODUCTS).is_file() or (path.parent / WITHDRAWN).is_file():
            drops.append(Drop(path.parent, landed))
    if not drops:
        raise UserError(f"{folder}: no accepted drop. Land one first: `python -m data.land data/starter/drop-1`.")
    return sorted(drops, key=lambda drop: drop.landed)


def read_rows(drops: list[Drop]) -> pd.DataFrame:
    """Every accepted row of every drop, in landing order, without the pictures; `landed` is its drop's place."""
    tables = [_read(drop, drop.products, (*TEXT_COLUMNS, ROW)) for drop in drops if drop.products.is_file()]
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if rows.empty:
        raise UserError(f"{drops[0].folder.parent}: the accepted drops hold no row. Look at their quarantine tables.")
    return rows


def read_withdrawals(drops: list[Drop]) -> pd.DataFrame:
    """Every withdrawal of every drop, in landing order: `catalog`, `id`, `row`, `landed`."""
    files = [(drop, drop.folder / WITHDRAWN) for drop in drops]
    tables = [_read(drop, path, (*KEY, ROW)) for drop, path in files if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEY, ROW, "landed"])


def settle(rows: pd.DataFrame, withdrawals: pd.DataFrame, near: Mapping[str, list[str]], *, val_share: float,
           test_share: float) -> Products:  # fmt: skip
    """Place every row (data/splits.py) and keep the latest of each product.

    Args:
        rows, withdrawals: of `read_rows` and `read_withdrawals`.
        near: earlier pictures that look the same as a picture, by `image_key`.
    """
    keys = leak_keys(rows, near)
    splitter = Splitter(val_share=val_share, test_share=test_share)
    split, because = pd.Series(None, index=rows.index, dtype=object), dict[int, list[str]]()
    for _, drop in rows.groupby("landed", sort=True):
        titles = [title_key(title) if isinstance(title, str) else None for title in drop["title"]]
        origins = [split_key(*pair) for pair in zip(titles, drop["image_key"], strict=True)]
        found = splitter.place(origins, [keys[row] for row in drop.index])
        split[drop.index] = found
        lost = [row for row, where in zip(drop.index, found, strict=True) if where is None]
        because |= {row: splitter.conflict(keys[row]) for row in lost}
    taken = split.notna()
    families = pd.Series(components([keys[row] for row in rows.index[taken]]), index=rows.index[taken])
    accepted = rows[taken].assign(family=families, split=split[taken])
    products, gone = _latest(accepted, withdrawals)
    return Products(
        rows=products.assign(group=_groups(products)), withdrawn=gone,
        held_back=rows[~taken].assign(because=pd.Series(because, dtype=object)),
        replaced=len(accepted) - len(accepted.drop_duplicates(KEY)),
    )  # fmt: skip


def leak_keys(rows: pd.DataFrame, near: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """What must not be seen from two sides of the split, of every row."""
    found = []
    for row in rows.to_dict("records"):
        title = title_key(row["title"]) if isinstance(row["title"], str) else None
        keys = [f"product {row['catalog']} {row['id']}", f"picture {row['image_key']}"]
        keys += [f"title {title}"] if title else []
        family = family_key(row)
        keys += [f"family {family}"] if family else []
        found.append([*keys, *(f"picture {other}" for other in near.get(row["image_key"], ()))])
    return found


def nearby(image_keys: list[str], pairs: Iterable[tuple[int, int]]) -> dict[str, list[str]]:
    """{picture: the earlier pictures that look the same}, from the places of both in `image_keys`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for earlier, later in pairs:
        found[image_keys[later]].append(image_keys[earlier])
    return dict(found)


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table's columns, whole numbers kept whole where some are missing; rows without a catalog are of the first."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable)
    return frame.assign(catalog=frame.get("catalog", schema.CATALOG))


def to_table(products: pd.DataFrame) -> pa.Table:
    """The contract's columns and types of `products.parquet`."""
    kinds = {"year": pa.int32(), "group": pa.int64(), "family": pa.int64()}
    fields = [(name, kinds.get(name, pa.string())) for name in (*TEXT_COLUMNS, "group", "family", "split")]
    return _table(products, pa.schema(fields))


def held_back_table(held_back: pd.DataFrame) -> pa.Table:
    """The columns of `held_back.parquet`."""
    return _table(held_back, HELD_BACK)


def _table(frame: pd.DataFrame, columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pandas(frame, schema=columns, preserve_index=False).replace_schema_metadata()


def _read(drop: Drop, path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    present = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in columns if name in present])
    return as_frame(table).assign(landed=drop.landed)


def _latest(accepted: pd.DataFrame, withdrawals: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The last row of every product that was not withdrawn after it, and how many are gone."""
    last = accepted[~accepted.duplicated(KEY, keep="last")]
    if withdrawals.empty:
        return last.reset_index(drop=True), 0
    order = ["landed", ROW]
    final = withdrawals.sort_values(order).drop_duplicates(KEY, keep="last")[[*KEY, *order]]
    both = last.reset_index().merge(final, on=KEY, how="inner", suffixes=("", "_gone"))
    later = (both["landed_gone"] > both["landed"]) | (
        (both["landed_gone"] == both["landed"]) & (both[f"{ROW}_gone"] > both[ROW])
    )
    return last.drop(both["index"][later]).reset_index(drop=True), int(later.sum())


def _groups(products: pd.DataFrame) -> list[int]:
    """Products that share their picture or title: one thing, listed more than once."""
    titles = [title_key(title) if isinstance(title, str) else None for title in products["title"]]
    found: list[int] = group_rows(titles, products["image_key"].tolist()).tolist()
    return found


def _nullable(kind: pa.DataType) -> object:
    return pd.Int32Dtype() if pa.types.is_integer(kind) else None
