"""Retrieval on the validation split: the number settings are chosen by, so that the test split stays unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.text import title_key
from training.encoder import DualEncoder, embed_images, embed_texts
from training.ranking import ranks
from training.source import IMAGES, Products

AT = (1, 5, 10)


def retrieval(encoder: DualEncoder, products: Products, dataset: Path) -> dict[str, float]:
    """`val_t2i_R@k` and `val_i2t_R@k` between distinct titles and distinct photos; equal titles are all correct.

    Where no product has a title, derived captions take their place.
    """
    asked = [title for title, _ in products.captions]
    if not any(asked):
        asked = [derived for _, derived in products.captions]
    rows = [(title_key(text), text, key) for text, key in zip(asked, products.image_keys, strict=True)]
    titles = {key: text for key, text, _ in rows if key and text}
    photos = sorted({photo for key, _, photo in rows if key})
    title_place = {key: i for i, key in enumerate(titles)}
    photo_place = {photo: i for i, photo in enumerate(photos)}
    pairs = np.array(sorted({(title_place[key], photo_place[photo]) for key, _, photo in rows if key}))
    left = embed_texts(encoder, list(titles.values()))
    right = embed_images(encoder, dataset / IMAGES, photos, "validation")
    t2i, i2t = ranks(left, right, pairs)
    return {
        f"val_{direction}_R@{k}": round(float((rank <= k).mean()), 4)
        for direction, rank in (("t2i", t2i), ("i2t", i2t))
        for k in AT
    }
