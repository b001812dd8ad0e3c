"""Groups of products that must stay together, and splits that stay put while the catalog grows.

Two rows belong to one group if they show the same pixels, carry the same title, or are two states of one product id;
groups are the connected components, over every row ever landed, replaced ones included.

Every title hashes to a fixed position in [0, 1); an untitled row hashes by its picture. A group stands at the smallest
position of its members: below 1 - val - test it is in train, above that in val, and the top is test. New rows and links
only add positions to a group, so its own can only fall: a product may move from test to val or train, never the other
way, and a champion is never examined on what it has seen. Hashing titles alone, not titles and pictures, keeps the
shares true: most groups have one title, so the minimum is over one draw, and P(test) is the share asked for. With both,
a lone product would draw twice and test would shrink to share²: 1.7 % instead of 15 % of the starter catalog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SALT = "fittingroom split 1"  # changing it would move train products into test: never change it


def group_rows(*keys: Sequence[str | None]) -> np.ndarray:
    """Connected components of rows that share a value in any of the key columns; None links nothing.

    Args:
        keys: key columns of equal length N.

    Returns:
        int64 (N,): group numbers 0, 1, ... in order of first appearance, so later rows never renumber lone groups.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    rows: list[int] = []
    nodes: list[int] = []
    known: dict[tuple[int, str], int] = {}
    for column, values in enumerate(keys):
        for row, value in enumerate(values):
            if value is not None:
                rows.append(row)
                nodes.append(count + known.setdefault((column, value), len(known)))
    size = count + len(known)
    links = coo_array((np.ones(len(rows), dtype=np.int8), (rows, nodes)), shape=(size, size))
    labels = connected_components(links, directed=False)[1][:count]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def position(key: str) -> float:
    """The fixed place of a key in [0, 1), uniform over keys."""
    digest = hashlib.sha256(f"{_SALT}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_key(title: str | None, image_key: str) -> str:
    """What a row is placed by: its title key, or its picture where it has no title."""
    return f"title {title}" if title is not None else f"image {image_key}"


def assign(groups: np.ndarray, keys: Iterable[str], *, val_share: float, test_share: float) -> list[Split]:
    """The split of every row: by the smallest position in its group (see the module text).

    Args:
        groups: int64 (N,) group numbers 0 .. G-1.
        keys: N split keys.
        val_share, test_share: expected shares of groups with one title.
    """
    places = np.fromiter((position(key) for key in keys), dtype=np.float64, count=len(groups))
    lowest = np.ones(int(groups.max(initial=-1)) + 1)
    np.minimum.at(lowest, groups, places)
    edges = np.array([1.0 - val_share - test_share, 1.0 - test_share])
    return [SPLITS[i] for i in np.searchsorted(edges, lowest[groups], side="right")]


def share_spread(groups: np.ndarray, share: float) -> float:
    """Standard deviation of a split's share of rows when every group falls into it with probability `share`."""
    sizes = np.bincount(groups).astype(np.float64)
    return float(np.sqrt(share * (1.0 - share) * (sizes**2).sum()) / max(len(groups), 1))
