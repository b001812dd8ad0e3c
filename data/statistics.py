"""What a dataset holds, in numbers: counts per split and attribute, drift of the last drop, and the checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from data.dataset_rows import KEY, Products
from data.families import family_key
from data.splits import SPLITS, share_spread
from data.text import title_key

ATTRIBUTES = ("gender", "master_category", "sub_category", "article_type", "base_colour", "season", "year", "usage")
RARE = 10  # products in train below which a model can hardly learn an article type
SPREADS = 4.0  # standard deviations by which a split's share may miss its target
GIANT = 0.05  # share of the products above which a family makes the splits a matter of luck


def statistics(products: pd.DataFrame) -> dict[str, Any]:
    """Everything `statistics.json` says of the products (columns of data/dataset.py)."""
    words = products["derived_caption"].dropna().str.split().str.len()
    return {
        "products": len(products),
        "images": int(products["image_key"].nunique()),
        "groups": int(products["group"].nunique()),
        "families": int(products["family"].nunique()),
        "largest_family": int(products["family"].value_counts().max()),
        "titles": int(products["title"].nunique()),
        "without_title": int(products["title"].isna().sum()),
        "splits": _split_table(products),
        "drops": products["drop_id"].value_counts(sort=False).to_dict(),
        "catalogs": products["catalog"].value_counts(sort=False).to_dict(),
        "caption_words": {"mean": round(float(words.mean()), 2), "max": int(words.max())} if len(words) else None,
        "attributes": {name: _values(products, name) for name in ATTRIBUTES},
    }


def summary(found: Mapping[str, Any]) -> dict[str, int]:
    """The numbers that go into the record's summary."""
    counts = ("products", "images", "groups", "families", "largest_family", "replaced_rows", "withdrawn_products",
              "held_back_rows")  # fmt: skip
    return {key: found[key] for key in counts} | {row["split"]: row["products"] for row in found["splits"]}


def drift(products: pd.DataFrame) -> list[dict[str, Any]]:
    """How the last drop's attributes differ from those of all earlier ones; empty if its catalogs have no other drop.

    The distance is total variation: half the sum of absolute differences of the shares, 0 for equal, 1 for disjoint.
    """
    last = products["drop_id"].iloc[-1]
    products = products[products["catalog"].isin(products["catalog"][products["drop_id"] == last])]
    is_new = products["drop_id"] == last
    if is_new.all():
        return []
    rows = []
    for name in ATTRIBUTES:
        values = products[name].astype("string").fillna("(none)")
        new, old = (values[mask].value_counts(normalize=True) for mask in (is_new, ~is_new))
        gap = new.subtract(old, fill_value=0.0).sort_index()
        rows.append({
            "attribute": name, "distance": round(float(gap.abs().sum()) / 2, 4), "grew_most": str(gap.idxmax()),
            "by": round(float(gap.max()), 4), "shrank_most": str(gap.idxmin()), "to": round(float(gap.min()), 4),
        })  # fmt: skip
    return rows


def check_dataset(
    made: Products, near: Mapping[str, Iterable[str]], images: Path, shares: Mapping[str, float], max_drift: float
) -> Iterator[dict[str, Any]]:
    """The checks of a dataset, each as the arguments of `Run.check`. `near`: see `data.dataset_rows.settle`."""
    products = made.rows
    yield _leaks(products, near)
    yield _pictures(products, images)
    yield _unique(products)
    for split, share in shares.items():
        yield _share(products, split, share)
    yield _giant(products)
    yield _held_back(made)
    yield _rare(products)
    yield _unseen(products)
    yield _drifted(drift(products), max_drift)


def _leaks(products: pd.DataFrame, near: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Leaks found from pictures and titles themselves, not from the family numbers or the keys that made the splits."""
    titles = products["title"].map(title_key, na_action="ignore")
    families = pd.Series([family_key(row) for row in products.to_dict("records")], index=products.index, dtype=object)
    crossing: set[str] = set()
    for key in (products["image_key"], titles, families):
        spread = products["split"].groupby(key).transform("nunique")
        crossing |= set(products["row_id"][spread > 1])
    shown = products.drop_duplicates("image_key").set_index("image_key")
    for later, others in near.items():
        for one in (one for one in others if one in shown.index and later in shown.index):
            if shown.at[one, "split"] != shown.at[later, "split"]:
                crossing |= {shown.at[one, "row_id"], shown.at[later, "row_id"]}
    return {
        "name": "no_family_crosses_splits", "passed": not crossing, "severity": "critical", "count": len(crossing),
        "examples": sorted(crossing),
        "description": "Products that share a picture, its likeness, a title or a family lie in one split, so nothing "
        "in test was trained on.",
    }  # fmt: skip


def _pictures(products: pd.DataFrame, images: Path) -> dict[str, Any]:
    stored = pq.read_table(images, columns=["image_key"])["image_key"].to_pylist()
    missing = products["row_id"][~products["image_key"].isin(stored)].tolist()
    good = not missing and len(stored) == products["image_key"].nunique()
    return {
        "name": "every_picture_once", "passed": good, "severity": "critical", "count": len(missing),
        "examples": missing, "description": "Every product's picture is in images.parquet, once.",
    }  # fmt: skip


def _unique(products: pd.DataFrame) -> dict[str, Any]:
    twice = products["row_id"][products.duplicated(KEY) | products.duplicated("row_id")].tolist()
    return {
        "name": "one_row_per_product", "passed": not twice, "severity": "critical", "count": len(twice),
        "examples": twice, "description": "Product ids (within their catalog) and row ids are unique.",
    }  # fmt: skip


def _share(products: pd.DataFrame, split: str, share: float) -> dict[str, Any]:
    found = float((products["split"] == split).mean())
    spread = share_spread(products["family"].factorize()[0], share)
    return {
        "name": f"{split}_share", "passed": abs(found - share) <= SPREADS * spread and found > 0,
        "severity": "warning", "count": int((products["split"] == split).sum()),
        "description": f"The share of {split} is within {SPREADS:.0f} standard deviations of the one asked for.",
        "share": round(found, 4), "asked": share, "standard_deviation": round(spread, 4),
    }  # fmt: skip


def _giant(products: pd.DataFrame) -> dict[str, Any]:
    largest = products["family"].value_counts()
    members = products["row_id"][products["family"] == largest.index[0]].tolist()
    good = len(members) <= GIANT * len(products) or len(largest) < 1 / GIANT
    return {
        "name": "no_giant_family", "passed": good, "severity": "warning", "count": len(members), "examples": members,
        "description": f"No family holds more than {GIANT:.0%} of the products; it would tip the shares of the splits.",
    }  # fmt: skip


def _held_back(made: Products) -> dict[str, Any]:
    rows = made.held_back["row_id"].tolist()
    return {
        "name": "every_row_fits_a_split", "passed": not rows, "severity": "warning", "count": len(rows),
        "examples": rows,
        "description": "No row links products of different splits. One that does is left out; held_back.parquet says "
        "why.",
    }  # fmt: skip


def _rare(products: pd.DataFrame) -> dict[str, Any]:
    counts = products["article_type"][products["split"] == "train"].value_counts()
    rare = sorted(set(products["article_type"].dropna()) - set(counts[counts >= RARE].index))
    return {
        "name": "rare_article_types", "passed": not rare, "severity": "info", "count": len(rare), "examples": rare,
        "description": f"Article types with fewer than {RARE} products in train; results on them mean little.",
    }  # fmt: skip


def _unseen(products: pd.DataFrame) -> dict[str, Any]:
    held = products[(products["split"] != "train") & products["article_type"].notna()]
    known = set(products["article_type"][products["split"] == "train"])
    unseen = held["row_id"][~held["article_type"].isin(known)].tolist()
    return {
        "name": "held_out_types_are_trained", "passed": not unseen, "severity": "warning", "count": len(unseen),
        "examples": unseen, "description": "Every article type in val and test also occurs in train.",
    }  # fmt: skip


def _drifted(rows: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    moved = [f"{row['attribute']}: {row['distance']}" for row in rows if row["distance"] > limit]
    return {
        "name": "last_drop_resembles_the_others", "passed": not moved, "severity": "warning", "count": len(moved),
        "examples": moved,
        "description": f"No attribute's distribution in the last drop differs by more than {limit} (total variation).",
    }  # fmt: skip


def _split_table(products: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        part = products[products["split"] == split]
        rows.append({
            "split": split, "products": len(part), "share": round(len(part) / len(products), 4),
            "families": int(part["family"].nunique()), "images": int(part["image_key"].nunique()),
            "article_types": int(part["article_type"].nunique()),
        })  # fmt: skip
    return rows


def _values(products: pd.DataFrame, name: str) -> dict[str, dict[str, int]]:
    """{value: {split: count}}, most frequent first; missing values count as "(none)"."""
    values = products[name].astype("string").fillna("(none)")
    counts = pd.crosstab(values, products["split"]).reindex(columns=list(SPLITS), fill_value=0)
    order = sorted(counts.index, key=lambda value: (-int(counts.loc[value].sum()), value))
    return {str(value): {split: int(counts.loc[value, split]) for split in SPLITS} for value in order}
