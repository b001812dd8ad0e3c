"""What could also be true: the catalog's colours, article types, wearers and usages, and which of them overlap.

A hard negative replaces a word by one that must be *false* of the product. Two values are `compatible` when a product
described by one could truthfully be described by the other: shades of one colour, a general word and its kinds (top and
T-shirt), kinds that the catalog itself uses for one photo or one title (flats, heels and sandals; casual, formal and
sports shoes). Of what has no column, two values are compatible unless words.py says that they exclude each other.
Everything here is data; no rule looks at spelling.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from data.negatives.words import (
    ACTIONS,
    ACTIONS_EXCLUDE,
    MATERIALS,
    MATERIALS_EXCLUDE,
    PARTS,
    PARTS_EXCLUDE,
    PATTERNS,
    PATTERNS_EXCLUDE,
    THINGS,
    THINGS_EXCLUDE,
    rows,
    spellings,
)

Kind = str  # one of KINDS
COLUMN: Mapping[Kind, str] = {
    "colour": "base_colour", "article": "article_type", "gender": "gender", "usage": "usage", "season": "season",
}  # fmt: skip
UNSTATED: tuple[Kind, ...] = ("material", "pattern", "part", "thing", "action")  # no column: captions alone tell
KINDS: tuple[Kind, ...] = (*COLUMN, *UNSTATED)

# Values that say nothing definite: any replacement might be true beside them.
ANY = {"colour": {"Multi"}, "article": {"Free Gifts", "Accessory Gift Set"}, "gender": {"Unisex"}}

# One family per line: members may describe the same product. A value may belong to several families.
_COLOUR_FAMILIES = """
Navy Blue, Blue
Blue, Turquoise Blue, Teal
Teal, Green, Sea Green, Turquoise Blue
Green, Olive, Sea Green, Lime Green, Fluorescent Green
Olive, Khaki
Yellow, Lime Green, Fluorescent Green
Purple, Lavender, Mauve
Purple, Magenta
Purple, Burgundy
Pink, Magenta
Pink, Rose, Peach, Mauve, Lavender
Red, Maroon, Burgundy, Rust
Red, Rose
Maroon, Brown, Rust
Black, Charcoal
Grey, Grey Melange, Charcoal, Silver, Steel, Metallic, Taupe
White, Silver, Steel
White, Off White, Cream
Cream, Off White, Beige, Skin, Nude, Peach
Cream, Yellow
Beige, Tan, Khaki, Taupe, Mushroom Brown, Skin, Nude
Brown, Coffee Brown, Mushroom Brown, Tan, Taupe, Khaki, Rust, Copper, Bronze
Gold, Bronze, Copper, Metallic
Gold, Yellow, Mustard
Gold, Rose
Mustard, Orange, Yellow
Orange, Peach, Rust, Copper
"""
_ARTICLE_FAMILIES = """
Casual Shoes, Sports Shoes, Formal Shoes, Booties
Flats, Heels, Sandals, Sports Sandals, Flip Flops
Flats, Casual Shoes
Heels, Formal Shoes
Sports Sandals, Sports Shoes
Tops, Tshirts
Tops, Shirts
Tops, Camisoles, Innerwear Vests
Tops, Shrug
Tops, Sweaters
Tops, Sweatshirts
Tops, Tunics, Kurtis, Kurtas, Kurta Sets
Tshirts, Innerwear Vests
Tunics, Dresses
Dresses, Nightdress, Jumpsuit, Rompers
Kurtas, Kurta Sets, Suits, Salwar and Dupatta
Kurta Sets, Dupatta, Salwar, Churidar, Patiala
Sarees, Stoles
Sweaters, Sweatshirts
Sweatshirts, Jackets, Tracksuits
Jackets, Rain Jacket, Blazers, Suits, Waistcoat
Trousers, Jeans, Track Pants, Lounge Pants, Tracksuits
Trousers, Leggings, Capris, Suits
Leggings, Jeggings, Tights, Stockings, Churidar, Capris, Track Pants
Jeans, Jeggings
Salwar, Patiala, Churidar, Salwar and Dupatta, Lounge Pants
Shorts, Lounge Shorts, Boxers, Trunk, Capris
Skirts, Shorts
Briefs, Trunk, Boxers, Shapewear
Bra, Camisoles, Shapewear
Swimwear, Briefs, Bra, Shorts, Trunk, Rompers, Jumpsuit
Nightdress, Night suits, Baby Dolls, Robe, Bath Robe
Night suits, Lounge Pants, Lounge Shorts, Tracksuits
Handbags, Clutches, Messenger Bag, Laptop Bag, Duffel Bag
Clutches, Wallets, Mobile Pouch, Waist Pouch, Travel Accessory
Backpacks, Rucksacks, Laptop Bag, Messenger Bag
Duffel Bag, Trolley Bag, Travel Accessory, Rucksacks
Necklace and Chains, Pendant, Jewellery Set
Earrings, Ring, Bangle, Jewellery Set
Bangle, Bracelet, Wristbands, Jewellery Set
Watches, Bracelet
Scarves, Stoles, Dupatta, Mufflers, Shrug
Socks, Stockings, Booties
Caps, Headband
Ties, Ties and Cufflinks, Cufflinks
Perfume and Body Mist, Deodorant, Fragrance Gift Set
Lipstick, Lip Gloss, Lip Liner, Lip Plumper, Lip Care
Kajal and Eyeliner, Eyeshadow, Mascara
Foundation and Primer, Concealer, Compact, Highlighter and Blush, Sunscreen, Face Moisturisers
Eyeshadow, Highlighter and Blush, Compact
Face Moisturisers, Sunscreen, Eye Cream, Face Serum and Gel, Mask and Peel, Toner, Body Lotion
Face Wash and Cleanser, Makeup Remover, Toner, Mask and Peel
Nail Polish, Nail Essentials
Footballs, Basketballs
"""
# What other catalogs call things, in lower case, and the article types that may be meant.
_OVER = ("Jackets", "Rain Jacket", "Blazers", "Sweaters", "Sweatshirts", "Waistcoat", "Shrug")
_LONG = ("Tops", "Tshirts", "Shirts", "Sweaters", "Sweatshirts", "Innerwear Vests")
_SUIT = ("Tops", "Tshirts", "Rompers", "Jumpsuit", "Innerwear Vests", "Swimwear")
OTHER_NAMES = {
    "polo": ("Tops", "Tshirts", "Shirts"),
    "polo shirt": ("Tops", "Tshirts", "Shirts"),
    "blouse": ("Tops", "Shirts"),
    "shirt": ("Tops", "Tshirts"),
    "body": _SUIT,
    "bodysuit": _SUIT,
    "longsleeve": _LONG,
    "long-sleeve top": _LONG,
    "hat": ("Caps",),
    "hoodie": ("Sweatshirts", "Jackets", "Tops"),
    "outwear": _OVER,
    "outerwear": _OVER,
    "undershirt": ("Innerwear Vests", "Camisoles", "Tshirts", "Tops"),
    "pants": ("Trousers", "Jeans", "Track Pants", "Lounge Pants", "Leggings", "Capris"),
    "shoes": ("Casual Shoes", "Sports Shoes", "Formal Shoes", "Heels", "Flats", "Booties", "Sandals"),
}
_GENDER_FAMILIES = """
Men, Boys
Women, Girls
"""  # the same garment in a smaller size: a photo of the product alone cannot tell
# "Casual" is the catalog's word for whatever has no other usage. Of two products with one title, the partner of a
# sports one is called casual in 22 % of the starter catalog's cases: too often to call either false. Formal (13 %) and
# ethnic (5 %) are kept apart from casual.
_USAGE_FAMILIES = """
Casual, Smart Casual, Travel, Party
Casual, Sports
Smart Casual, Formal, Party
Ethnic, Party
Sports, Travel
"""
_SEASON_FAMILIES = """
Spring, Summer
Fall, Winter
Spring, Fall
"""

# Products with metal parts: a metal colour may be true of the buckle, the case or the frame, whatever the main colour.
METAL = frozenset({"Silver", "Steel", "Metallic", "Gold", "Bronze", "Copper", "Rose"})
METAL_PARTS = frozenset({"Watches", "Belts", "Sunglasses", "Handbags", "Clutches", "Wallets", "Cufflinks"})


def _overlaps(kind: Kind, families: str) -> dict[str, frozenset[str]]:
    """{value: all values compatible with it, itself included} of one kind."""
    found: dict[str, set[str]] = {value: {value} for value in ANY.get(kind, ())}
    for line in families.strip().splitlines():
        members = {name.strip() for name in line.split(",")}
        for name in members:
            found.setdefault(name, {name}).update(members)
    return {name: frozenset(others) for name, others in found.items()}


def _excluded(spelled: str, excluding: str) -> dict[str, frozenset[str]]:
    """{value: all values that are false where it is true} of one kind that has no column."""
    lines = rows(excluding)
    values = {value for _, value, _ in spellings(spelled)}
    return {value: frozenset().union(*(line - {value} for line in lines if value in line)) for value in values}


def _facets(excluded: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """{value: those of its facet that may be true beside it, itself included}; chains of exclusion make a facet."""
    found = {}
    for value in excluded:
        facet, fresh = {value}, {value}
        while fresh:
            fresh = set().union(*(excluded[name] for name in fresh)) - facet
            facet |= fresh
        found[value] = frozenset(facet - excluded[value])
    return found


_EXCLUDED = {
    "material": _excluded(MATERIALS, MATERIALS_EXCLUDE), "pattern": _excluded(PATTERNS, PATTERNS_EXCLUDE),
    "part": _excluded(PARTS, PARTS_EXCLUDE), "thing": _excluded(THINGS, THINGS_EXCLUDE),
    "action": _excluded(ACTIONS, ACTIONS_EXCLUDE),
}  # fmt: skip
_COMPATIBLE = {
    "colour": _overlaps("colour", _COLOUR_FAMILIES),
    "article": _overlaps("article", _ARTICLE_FAMILIES),
    "gender": _overlaps("gender", _GENDER_FAMILIES),
    "usage": _overlaps("usage", _USAGE_FAMILIES),
    "season": _overlaps("season", _SEASON_FAMILIES),
    **{kind: _facets(excluded) for kind, excluded in _EXCLUDED.items()},
}


def overlap(kind: Kind, value: str) -> frozenset[str]:
    """All values that could be true of a product described as `value`, itself included; see `is_any` for the rest.

    Of a kind without a column these are the values of its own facet: what "V-Neck" leaves open of sleeves is not meant.
    """
    return _COMPATIBLE[kind].get(value) or frozenset((value,))


def is_any(kind: Kind, values: Iterable[str]) -> bool:
    """Whether one of `values` is so unspecific ("Multi", "Unisex") that no replacement is certainly false."""
    return kind in ANY and not ANY[kind].isdisjoint(values)


def compatible(kind: Kind, one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether some value of `one` and some value of `other` could describe the same product. Symmetric."""
    return _compatible(kind, frozenset(one), frozenset(other))


@functools.lru_cache(maxsize=1 << 16)
def _compatible(kind: Kind, one: frozenset[str], other: frozenset[str]) -> bool:
    if kind in _EXCLUDED:
        return any(second not in _EXCLUDED[kind][first] for first in one for second in other)
    if is_any(kind, one) or is_any(kind, other):
        return True
    return any(not overlap(kind, value).isdisjoint(other) for value in one)
