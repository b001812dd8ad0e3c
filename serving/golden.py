"""Golden inputs and their offline answers, computed by PyTorch, that a served version is held against.

Inputs come evenly from the test split: titles as texts, photos as images, and both together. An answer is what the
endpoint must return: the embeddings, the match of text and image, and the best products with their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.images import decode_rgb, to_pixels
from data.params import UserError
from serving.config import ExportConfig
from serving.index import Product

if TYPE_CHECKING:
    from training.encoder import DualEncoder

FILE = "cases.parquet"
# What people type is not what catalogs call things; these stand beside the titles whatever the dataset.
PHRASES = ("red running shoes for women", "a black leather wallet for men", "blue jeans", "gold-plated earrings",
           "kids' T-shirt with a print", "white sneakers")  # fmt: skip
SCHEMA = pa.schema([
    ("case", pa.string()), ("text", pa.string()), ("image", pa.binary()), ("ids", pa.list_(pa.string())),
    ("titles", pa.list_(pa.string())), ("scores", pa.list_(pa.float32())), ("match", pa.float32()),
    ("text_embedding", pa.list_(pa.float32())), ("image_embedding", pa.list_(pa.float32())),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden input (`text`, `image` bytes, or both) and its offline answer, best product first."""

    case: str
    text: str | None
    image: bytes | None
    ids: list[str]
    titles: list[str]
    scores: list[float]
    match: float | None
    text_embedding: list[float] | None
    image_embedding: list[float] | None


def inputs(dataset: Path, config: ExportConfig) -> list[tuple[str, str | None, bytes | None]]:
    """(name, text, image) of every golden input. Raises `UserError` if the test split is too small to draw from."""
    columns = ["id", "title", "derived_caption", "image_key"]
    table = pq.read_table(dataset / "products.parquet", columns=columns, filters=[("split", "=", "test")]).sort_by("id")
    products = table.to_pylist()
    rows = [row for row in products if row["title"]]
    if not rows:  # a catalog without titles
        rows = [row | {"title": row["derived_caption"]} for row in products if row["derived_caption"]]
    if not rows:
        raise UserError(
            f"{dataset / 'products.parquet'}: the test split has no product with a text to take golden inputs from."
        )
    photos = _spread(rows, config.golden_images)
    pairs = _spread(rows[len(rows) // 2 :] + rows[: len(rows) // 2], config.golden_pairs)
    keys = {row["image_key"] for row in photos + pairs}
    pictures = pq.read_table(
        dataset / "images.parquet", columns=["image_key", "jpeg"], filters=[("image_key", "in", sorted(keys))]
    )
    jpeg = dict(zip(pictures["image_key"].to_pylist(), pictures["jpeg"].to_pylist(), strict=True))
    return [
        *((f"phrase {i}", phrase, None) for i, phrase in enumerate(PHRASES)),
        *((f"title {row['id']}", row["title"], None) for row in _spread(rows, config.golden_texts)),
        *((f"photo {row['id']}", None, jpeg[row["image_key"]]) for row in photos),
        *((f"pair {row['id']}", row["title"], jpeg[row["image_key"]]) for row in pairs),
    ]


def answer(
    encoder: DualEncoder, products: Sequence[Product], embeddings: np.ndarray, k: int,
    case: str, text: str | None, image: bytes | None,
) -> Case:  # fmt: skip
    """The offline answer: PyTorch towers on one input at a time, a stable sort of all scores.

    `embeddings` is the index, (N, D) float32. The score is the mean of the cosines with what was given.
    """
    import torch

    made: dict[str, Any] = {"text": None, "image": None}
    with torch.inference_mode():
        if text is not None:
            made["text"] = encoder.encode_text(*encoder.tokenize([text]))[0]
        if image is not None:
            pixels = to_pixels(decode_rgb(image), encoder.config.image_size)
            made["image"] = encoder.encode_image(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0]
        given = [vector for vector in made.values() if vector is not None]
        scores = torch.from_numpy(embeddings) @ torch.stack(given).mean(0)
        values, rows = scores.sort(descending=True, stable=True)  # rows are in id order: a tie goes to the lower id
        match = None if len(given) < 2 else float(made["text"] @ made["image"])
    best = [products[row] for row in rows[:k].tolist()]
    return Case(
        case=case, text=text, image=image, ids=[p.id for p in best], titles=[p.title for p in best],
        scores=values[:k].tolist(), match=match,
        text_embedding=None if made["text"] is None else made["text"].tolist(),
        image_embedding=None if made["image"] is None else made["image"].tolist(),
    )  # fmt: skip


def write(folder: Path, cases: Sequence[Case]) -> None:
    """Write the cases as one parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([asdict(case) for case in cases], schema=SCHEMA), folder / FILE)


def read(folder: Path) -> list[Case]:
    """The cases of an export. Raises `UserError` if they are missing."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path}: not found, so nothing can be compared. Export the model again.")
    return [Case(**row) for row in pq.read_table(path).to_pylist()]


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    """`count` rows at even distances, all of them if there are fewer."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]
