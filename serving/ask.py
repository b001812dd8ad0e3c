"""Ask the live endpoint, and see what it answers: products in words, and as a picture under runs/serving/ask/."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from data.images import decode_rgb
from data.params import UserError
from serving import grid, registry, server
from serving.config import DATASET, SERVING
from serving.triton import Answer, Query, Triton, TritonError

PICTURES = SERVING / "ask"
ENDPOINT = "search"
ATTEMPTS = 3  # a promotion can unload the version between looking it up and asking it


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One product that was found."""

    id: str
    title: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An answer: the endpoint, the version and the model record that gave it; the products, best first; its picture.

    `match` is the cosine of text and image when both were asked with, else None. `fittingroom trace` follows it.
    """

    endpoint: str
    version: int
    record: str
    hits: list[Hit]
    match: float | None
    picture: Path


def ask(text: str | None = None, *, image: Path | bytes | None = None, k: int = 5) -> Asked:
    """Ask the champion of `search` with a text, a picture (a file or its bytes), or both, for `k` products.

    Raises `UserError` if nothing is live, the file cannot be read, or the endpoint refuses the question.
    """
    data = _read(image) if isinstance(image, Path) else image
    answer = ask_champion(ENDPOINT, Query(text=text, image=data, k=k))
    hits = [
        Hit(id=i, title=t, score=float(s)) for i, t, s in zip(answer.ids, answer.titles, answer.scores, strict=True)
    ]
    picture = PICTURES / f"{_name(text, data)}.png"
    _draw(picture, text, data, hits, answer)
    match = answer.match if text is not None and data is not None else None
    return Asked(
        endpoint=ENDPOINT, version=answer.version, record=answer.record, hits=hits, match=match, picture=picture
    )  # fmt: skip


def ask_champion(endpoint: str, query: Query) -> Answer:
    """Ask the version that the alias `champion` names, on the running server (started if need be).

    The version is looked up anew if it is gone by the time it is asked, so a promotion or rollback is never noticed.
    """
    running = server.ensure_running()
    with Triton(running) as client:
        for attempt in range(1, ATTEMPTS + 1):
            version = registry.champion(endpoint)
            if version is None:
                raise UserError(f"nothing is live at {endpoint}. Promote a model: `fittingroom promote ce_clip`.")
            try:
                return client.search(query, model=endpoint, version=version)
            except TritonError as error:
                if not error.version_gone or attempt == ATTEMPTS:
                    raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _draw(path: Path, text: str | None, data: bytes | None, hits: Sequence[Hit], answer: Answer) -> None:
    photos = _photos([hit.id for hit in hits])
    tiles = [
        grid.Tile(photo=photos.get(hit.id), rank=rank, score=hit.score, title=hit.title, id=hit.id)
        for rank, hit in enumerate(hits, start=1)
    ]
    asked = decode_rgb(data) if data is not None else None
    question = f"“{text}”" if text is not None else "products like this picture"
    match = f"   match of text and picture {answer.match:.3f}" if text is not None and data is not None else ""
    footer = f"{answer.model} version {answer.version}   model {answer.record[:12]}{match}"
    grid.draw(path, question, asked, tiles, footer)


def _photos(ids: Sequence[str]) -> dict[str, Image.Image]:
    """{product id: photo} for those of `ids` that the dataset holds now."""
    if not (DATASET / "images.parquet").is_file():
        return {}
    rows = pq.read_table(DATASET / "products.parquet", columns=["id", "image_key"], filters=[("id", "in", list(ids))])
    key = dict(zip(rows["id"].to_pylist(), rows["image_key"].to_pylist(), strict=True))
    pictures = pq.read_table(
        DATASET / "images.parquet",
        columns=["image_key", "jpeg"],
        filters=[("image_key", "in", sorted(set(key.values())))],
    )
    jpeg = dict(zip(pictures["image_key"].to_pylist(), pictures["jpeg"].to_pylist(), strict=True))
    return {product: decode_rgb(jpeg[image_key]) for product, image_key in key.items() if image_key in jpeg}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Give a JPEG, PNG or WebP file.") from None


def _name(text: str | None, data: bytes | None) -> str:
    """A file name that a person recognises and that the same question gets again."""
    words = re.sub(r"[^a-z0-9]+", "-", (text or "picture").lower()).strip("-")[:48] or "question"
    digest = hashlib.sha256(repr((text, data)).encode()).hexdigest()[:6]
    return f"{words}-{digest}"
