"""Negatives that are true of their product, planted on purpose: the audit is right if it finds their share again.

Each planted row keeps its caption and gets a "negative" that a shop could have written of the same product: another
caption of it or of a product with the same photo or title, the caption with a word replaced by a synonym or a more
general one, or with a word replaced by what an attribute says. The words are this file's own, not the witnesses'.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data.text import clean, fit_article, fold, recase, title_key, tokens

Row = Mapping[str, Any]
# How true "negatives" come about and how often each is planted where a row allows it. The first stands for what a model
# of the product writes anew, the second and third for near synonyms that slip through word lists.
SHARES = {"caption": 0.3, "synonym": 0.35, "attribute": 0.35}
# One word to another that is true of whatever the first is true of, as shops write them.
_ANOTHER_WORD = {
    "tshirt": "tee", "tshirts": "tees", "t-shirt": "tshirt", "tee": "t-shirt", "trousers": "pants", "pants": "trousers",
    "sweaters": "pullovers", "sweater": "pullover", "sarees": "saris", "saree": "sari", "casual shoes": "shoes",
    "sports shoes": "shoes", "formal shoes": "footwear", "sandals": "footwear", "flip flops": "slippers",
    "heels": "footwear", "flats": "footwear", "handbag": "bag", "handbags": "bags", "backpacks": "bags",
    "backpack": "bag", "clutches": "bags", "sunglasses": "eyewear", "navy blue": "blue", "navy": "navy blue",
    "grey": "gray", "gold": "golden", "maroon": "red", "burgundy": "red", "off white": "white", "women": "ladies",
    "olive": "green", "coffee brown": "brown", "deodorant": "deo", "shirts": "topwear", "jeans": "bottomwear",
}  # fmt: skip
_PLACES = ("article_type", "base_colour", "gender")  # what an attribute's word may be put in the place of
_SAYING = ("sub_category", "master_category", "base_colour", "usage", "article_type")  # attributes that it may say
_WORD = re.compile("|".join(rf"(?<![\w-]){re.escape(w)}\b" for w in sorted(_ANOTHER_WORD, key=len, reverse=True)), re.I)


class Planted(NamedTuple):
    """Rows of which some are true: `kinds[i]` says how row i was made true, "" where it was left as it is."""

    rows: list[dict[str, Any]]
    kinds: list[str]

    @property
    def share(self) -> float:
        """The share of planted rows."""
        return sum(map(bool, self.kinds)) / max(1, len(self.kinds))


def plant(negatives: Sequence[Row], products: Sequence[Row], share: float, seed: int) -> Planted:
    """`negatives` with a share of them, drawn at random, made true of their products.

    Args:
        negatives: rows with row_id, caption_kind, caption and negative.
        products: rows of the dataset's `products.parquet`; those that share a photo or a title lend each other words.
        share: of the rows that are planted; a row is passed over in favour of the next if nothing fits it.
    """
    chance = random.Random(f"{seed} {share}")
    twins = _twins(products)
    order = list(range(len(negatives)))
    chance.shuffle(order)
    rows, kinds = [dict(row) for row in negatives], [""] * len(negatives)
    left = round(share * len(negatives))
    for place in order:
        if not left:
            break
        kind, text = _true_text(rows[place], twins[rows[place]["row_id"]], chance)
        if text is not None:
            rows[place]["negative"], kinds[place] = text, kind
            left -= 1
    return Planted(rows, kinds)


def _true_text(row: Row, twins: Sequence[Row], chance: random.Random) -> tuple[str, str | None]:
    """A way that fits the row and the text it makes; another way is tried where the drawn one does not fit."""
    first = chance.choices(list(SHARES), list(SHARES.values()))[0]
    for kind in (first, *(other for other in SHARES if other != first)):
        text = _WAYS[kind](row, twins, chance)
        if text is not None and fold(text) != fold(row["caption"]):
            return kind, text
    return first, None


def _caption(row: Row, twins: Sequence[Row], chance: random.Random) -> str | None:
    texts = sorted({clean(text) for twin in twins for text in (twin["title"], twin["derived_caption"]) if text})
    texts = [text for text in texts if fold(text) != fold(row["caption"])]
    return chance.choice(texts) if texts else None


def _synonym(row: Row, twins: Sequence[Row], chance: random.Random) -> str | None:
    found = list(_WORD.finditer(row["caption"]))
    if not found:
        return None
    match = chance.choice(found)
    return _put(row["caption"], *match.span(), _ANOTHER_WORD[match.group().lower()])


def _attribute(row: Row, twins: Sequence[Row], chance: random.Random) -> str | None:
    own = next(twin for twin in twins if twin["row_id"] == row["row_id"])
    places = [span for name in _PLACES if own.get(name) and (span := _span(row["caption"], own[name]))]
    held = {token.text for token in tokens(row["caption"])}
    values = [own[name] for name in _SAYING if own.get(name) and held.isdisjoint(_words(own[name]))]
    if not places or not values:
        return None
    return _put(row["caption"], *chance.choice(places), chance.choice(values))


_WAYS: dict[str, Callable[[Row, Sequence[Row], random.Random], str | None]] = {
    "caption": _caption, "synonym": _synonym, "attribute": _attribute,
}  # fmt: skip


def _put(caption: str, start: int, end: int, word: str) -> str:
    word = recase(word, caption[start:end])
    return fit_article(caption[:start], word) + word + caption[end:]


def _span(caption: str, value: str) -> tuple[int, int] | None:
    match = re.search(rf"(?<![\w-]){re.escape(value)}\b", caption, re.I)
    return match.span() if match else None


def _words(text: str) -> set[str]:
    return {token.text for token in tokens(text)}


def _twins(products: Sequence[Row]) -> dict[str, list[Row]]:
    """The products that share the photo or the title of each, itself included."""
    held: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in products:
        for key in _keys(row):
            held[key].append(row)
    found: dict[str, list[Row]] = {}
    for row in products:
        by_id = {twin["row_id"]: twin for key in _keys(row) for twin in held[key]}
        found[row["row_id"]] = [by_id[name] for name in sorted(by_id)]
    return found


def _keys(row: Row) -> list[tuple[str, str]]:
    title = title_key(row["title"])
    return [("photo", row["image_key"]), *([("title", title)] if title else [])]
