"""The words by which captions name colours, article types, wearers and the rest, and how to find them.

A `Term` is one spelling with what it denotes and its grammatical form. A `Lexicon` finds the terms of a caption by
longest match over tokens, so that "Navy Blue" and "Casual Shoes" are one mention each and "Shoes" in the latter is
none. `SEED` holds the fixed lists; a dataset's own attribute values extend it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data.negatives.ontology import OTHER_NAMES, Kind, overlap
from data.negatives.words import ACTIONS, MATERIALS, PARTS, PATTERNS, SEASONS, THINGS, spellings
from data.text import Token, tokens
from data.vocabulary import ARTICLE_TYPES, COLOURS, USAGES


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A spelling as titles write it (`text`), the catalog values it may stand for, and its form. One object per term.

    Forms are exchangeable only with the same form: "singular"/"plural" of articles and things, "men"/"men's"/... of
    wearers, the tag of verbs.
    """

    kind: Kind
    text: str
    values: frozenset[str]
    form: str = ""
    key: tuple[str, ...] = field(init=False)
    padded: str = field(init=False)  # the key's words between single spaces, with one at either end

    def __post_init__(self) -> None:
        key = tuple(token.text for token in tokens(self.text))
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "padded", f" {' '.join(key)} ")


class Mention(NamedTuple):
    """A term at its place in a caption: tokens `first` to `last` (inclusive), characters `start` to `end`.

    `attached`: bound to a word outside the term ("White/Black", "Dark Blue", "Gold Plated"), so not replaceable alone.
    """

    term: Term
    first: int
    last: int
    start: int
    end: int
    attached: bool = False


# Article types by the words titles use: "singular / plural" pairs, "-" where a form does not occur. The type's own name
# is added by rule. Words that stand for several types are listed under each of them.
_ARTICLES = """
Tshirts: T-shirt / T-shirts, Tshirt / Tshirts, Tee / Tees
Shirts: Shirt / Shirts, Kurta Shirt / -
Tops: Top / Tops, Tank Top / -
Sweatshirts: Sweatshirt / Sweatshirts, Hoodie / Hoodies
Sweaters: Sweater / Sweaters, Pullover / Pullovers, Cardigan / Cardigans
Jackets: Jacket / Jackets
Rain Jacket: Rain Jacket / Rain Jackets, Jacket / Jackets
Kurtas: Kurta / Kurtas
Kurtis: Kurti / Kurtis
Tunics: Tunic / Tunics
Kurta Sets: Kurta Set / Kurta Sets, Salwar Suit / -
Dresses: Dress / Dresses
Sarees: Saree / Sarees, Sari / Saris
Dupatta: Dupatta / Dupattas
Waistcoat: Waistcoat / Waistcoats
Suspenders: - / Suspenders
Shrug: Shrug / Shrugs
Blazers: Blazer / Blazers
Jeans: - / Jeans
Trousers: Trouser / Trousers, Pant / Pants
Track Pants: Track Pant / Track Pants, Pant / Pants
Lounge Pants: Lounge Pant / Lounge Pants, Pant / Pants, Pyjama / Pyjamas
Shorts: Short / Shorts
Lounge Shorts: Lounge Short / Lounge Shorts, Short / Shorts
Skirts: Skirt / Skirts
Capris: Capri / Capris
Leggings: Legging / Leggings
Jeggings: Jegging / Jeggings
Tights: - / Tights
Stockings: - / Stockings
Salwar: Salwar / -
Churidar: Churidar / Churidars
Patiala: Patiala / -
Tracksuits: Tracksuit / Tracksuits
Bra: Bra / Bras
Briefs: Brief / Briefs, Panty / Panties
Trunk: Trunk / Trunks
Boxers: Boxer / Boxers
Innerwear Vests: Innerwear Vest / Innerwear Vests, Vest / Vests
Camisoles: Camisole / Camisoles
Swimwear: Swimsuit / Swimsuits, Swimwear / -
Nightdress: Nightdress / -, Nightwear / -
Night suits: Night Suit / Night Suits, Nightsuit / Nightsuits
Robe: Robe / Robes
Bath Robe: Bath Robe / Bath Robes, Bathrobe / Bathrobes
Casual Shoes: Casual Shoe / Casual Shoes, Shoe / Shoes, Sneaker / Sneakers, Loafer / Loafers
Sports Shoes: Sports Shoe / Sports Shoes, Sport Shoe / Sport Shoes, Running Shoe / Running Shoes, Shoe / Shoes
Formal Shoes: Formal Shoe / Formal Shoes, Shoe / Shoes
Heels: Heel / Heels, Wedge / Wedges, Pump / Pumps, Shoe / Shoes, Sandal / Sandals
Flats: Flat / Flats, Ballerina / Ballerinas, Shoe / Shoes, Sandal / Sandals
Sandals: Sandal / Sandals, Floater / Floaters, Slipper / Slippers
Sports Sandals: Sports Sandal / Sports Sandals, Sandal / Sandals, Floater / Floaters
Flip Flops: Flip Flop / Flip Flops, Slipper / Slippers
Booties: Bootie / Booties
Socks: Sock / Socks
Handbags: Handbag / Handbags, Hand Bag / Hand Bags, Bag / Bags, Sling Bag / Sling Bags, Tote / Totes
Backpacks: Backpack / Backpacks, Bag / Bags
Rucksacks: Rucksack / Rucksacks, Bag / Bags
Clutches: Clutch / Clutches, Bag / Bags
Wallets: Wallet / Wallets, Pouch / Pouches
Laptop Bag: Laptop Bag / Laptop Bags, Bag / Bags
Messenger Bag: Messenger Bag / Messenger Bags, Bag / Bags
Duffel Bag: Duffel Bag / Duffel Bags, Duffle Bag / Duffle Bags, Bag / Bags
Trolley Bag: Trolley Bag / Trolley Bags, Bag / Bags
Mobile Pouch: Mobile Pouch / -, Pouch / Pouches
Waist Pouch: Waist Pouch / -, Pouch / Pouches
Watches: Watch / Watches
Belts: Belt / Belts
Ties: Tie / Ties
Cufflinks: Cufflink / Cufflinks
Sunglasses: - / Sunglasses, Sunglass / -
Caps: Cap / Caps
Gloves: Glove / Gloves
Scarves: Scarf / Scarves
Stoles: Stole / Stoles
Mufflers: Muffler / Mufflers
Earrings: Earring / Earrings
Pendant: Pendant / Pendants
Necklace and Chains: Necklace / Necklaces, Chain / Chains
Bangle: Bangle / Bangles
Bracelet: Bracelet / Bracelets
Ring: Ring / Rings
Jewellery Set: Jewellery Set / Jewellery Sets, Necklace Set / Necklace Sets
Umbrellas: Umbrella / Umbrellas
Perfume and Body Mist: Perfume / Perfumes, Body Mist / Body Mists
Deodorant: Deodorant / Deodorants, Deo / Deos
Lipstick: Lipstick / Lipsticks, Lipcolor / -, Lip Color / -, Lip Colour / -
Lip Gloss: Lip Gloss / -, Lip Color / -, Lip Colour / -
Lip Liner: Lip Liner / Lip Liners
Nail Polish: Nail Polish / Nail Polishes, Nail Lacquer / -, Nail Enamel / -, Nail Color / -, Nail Colour / -
Foundation and Primer: Foundation / Foundations, Primer / Primers
Compact: Compact / -
Kajal and Eyeliner: Kajal / -, Eyeliner / Eyeliners, Eye Liner / Eye Liners, Eye Pencil / Eye Pencils
Eyeshadow: Eyeshadow / Eyeshadows, Eye Shadow / Eye Shadows
Mascara: Mascara / -
Sunscreen: Sunscreen / -
"""
_PLAIN_SINGULAR = ("Lip Gloss",)  # article types that end in -s and are not plural

# Colour words that are no base colour of the catalog, and the base colours they come closest to.
_COLOUR_WORDS = {
    "Navy": ("Navy Blue",), "Golden": ("Gold",), "Violet": ("Purple", "Lavender"), "Ivory": ("Off White", "Cream"),
    "Camel": ("Tan", "Brown", "Beige"), "Wine": ("Burgundy", "Maroon"), "Aqua": ("Turquoise Blue", "Sea Green"),
    "Turquoise": ("Turquoise Blue",), "Coral": ("Peach", "Orange", "Pink"), "Fuchsia": ("Magenta", "Pink"),
    "Indigo": ("Navy Blue", "Blue", "Purple"), "Gunmetal": ("Steel", "Grey", "Charcoal"), "Coffee": ("Coffee Brown",),
    "Mushroom": ("Mushroom Brown",), "Lime": ("Lime Green",), "Gray": ("Grey",), "Multicolor": ("Multi",),
    "Multicolour": ("Multi",), "Multicoloured": ("Multi",), "Lilac": ("Lavender",), "Plum": ("Purple", "Burgundy"),
    "Melange": ("Grey Melange",), "Sky Blue": ("Blue",), "Royal Blue": ("Blue",), "Scarlet": ("Red",),
}  # fmt: skip
SHADES = frozenset({"light", "dark", "bright", "deep", "pale", "neon", "multi", "semi", "smart"})
_COATINGS = frozenset({"plated", "plating", "plate", "tone", "toned", "coloured", "colored", "melange", "co"})

_WEARERS = {
    "plural": ("Men", "Women", "Boys", "Girls"), "singular": ("Man", "Woman", "Boy", "Girl"),
    "possessive": ("Men's", "Women's", "Boy's", "Girl's"), "fused": ("Mens", "Womens", "", ""),
    "pronoun": ("Him", "Her", "", ""), "polite": ("Gents", "Ladies", "", ""),
}  # fmt: skip
_EVERYONE = ("Unisex", "Kids", "Kid's", "Kid", "Infant", "Teens")


class Lexicon:
    """Terms, found in captions by their first token.

    Args:
        terms: one per spelling; where two kinds share a spelling the first is found.
        meanings: the values that a dataset's own value, spelled like a term ("T-Shirt"), may stand for.
    """

    def __init__(self, terms: Iterable[Term], meanings: Mapping[tuple[Kind, str], frozenset[str]]) -> None:
        self.terms = tuple(terms)
        self._meanings = meanings
        self._closures: dict[tuple[Kind, frozenset[str]], frozenset[str]] = {}
        by_first: dict[str, list[tuple[tuple[str, ...], Term]]] = {}
        for term in self.terms:
            by_first.setdefault(term.key[0], []).append((term.key, term))
        self._by_first = {first: sorted(found, key=lambda pair: -len(pair[0])) for first, found in by_first.items()}

    def meanings(self, kind: Kind, value: str) -> frozenset[str]:
        """The values that an attribute's `value` may stand for, itself included."""
        return self._meanings.get((kind, value)) or frozenset((value,))

    def closure(self, kind: Kind, values: Iterable[str]) -> frozenset[str]:
        """All values that could be true of a product with these attribute values."""
        key = kind, frozenset(values)
        if key not in self._closures:
            meant = (meaning for value in key[1] for meaning in self.meanings(kind, value))
            self._closures[key] = frozenset().union(*(overlap(kind, value) for value in meant))
        return self._closures[key]

    def find(self, caption: str, words: Sequence[Token] | None = None) -> tuple[Mention, ...]:
        """All mentions in a caption, in order, none overlapping; the longest term wins at each token."""
        words = tokens(caption) if words is None else words
        found: list[Mention] = []
        place = 0
        while place < len(words):
            candidates = self._by_first.get(words[place].text)
            match = candidates and _longest(caption, words, place, candidates)
            if not match:
                place += 1
                continue
            term, first, last = match
            start, end = words[first].start, words[last].end
            attached = _joined(caption, start - 1, start - 2) or _joined(caption, end, end + 1)
            attached |= _qualified(words, first, last)
            found.append(Mention(term, first, last, start, end, attached))
            place = last + 1
        return tuple(found)

    def extended(self, values: Iterable[tuple[Kind, str]]) -> Lexicon:
        """With a term for every attribute value that no term stands for yet.

        A value spelled like a term may mean what that term means. One whose words are part of another's ("Apple",
        "Green Apple") may be the general word for it, so neither is certainly false of the other. Article types
        exclude each other otherwise; of an unknown colour, usage or wearer nothing is known to be the opposite.
        """
        known = {(term.kind, value) for term in self.terms for value in term.values}
        fresh = sorted({pair for pair in values if pair not in known and tokens(pair[1])})
        if not fresh:
            return self
        rest = {(term.kind, term.key): term for term in self.terms}
        found: dict[tuple[Kind, tuple[str, ...]], Term] = {}
        words = {pair: frozenset(token.text for token in tokens(pair[1])) for pair in {*known, *fresh}}
        meanings = dict(self._meanings)
        for kind, value in fresh:
            own = words[kind, value]
            near = (n for (other, n), theirs in words.items() if other == kind and (own <= theirs or theirs <= own))
            also = OTHER_NAMES.get(value.lower(), ()) if kind == "article" else ()
            term = Term(kind, value, frozenset({value, *near, *also}), _number(value) if kind == "article" else value)
            spelled = found.get((kind, term.key)) or rest.pop((kind, term.key), None)
            if spelled:
                term = Term(kind, spelled.text, term.values | spelled.values, spelled.form)
            found[kind, term.key] = term
            meanings[kind, value] = term.values
        return Lexicon((*found.values(), *rest.values()), meanings)  # the dataset's own words are found first


def _number(name: str) -> str:
    """Whether an article's name is "plural" or "singular", by its last letters."""
    low = name.lower()
    return "plural" if low.endswith("s") and not low.endswith(("ss", "us", "is")) else "singular"


def find(caption: str) -> tuple[Mention, ...]:
    """The mentions that the fixed lists find in a caption."""
    return seed().find(caption)


def _longest(
    caption: str, words: Sequence[Token], place: int, candidates: Iterable[tuple[tuple[str, ...], Term]]
) -> tuple[Term, int, int] | None:
    for key, term in candidates:
        last = place + len(key) - 1
        if last < len(words) and all(words[place + i].text == word for i, word in enumerate(key)):
            gaps = (caption[words[i].end : words[i + 1].start] for i in range(place, last))
            if all(not gap.strip(" -") and len(gap) <= 2 for gap in gaps):
                return term, place, last
    return None


def _qualified(words: Sequence[Token], first: int, last: int) -> bool:
    """ "Dark Blue", "Gold Plated", "Semi Formal": no other word can take the place of the catalog's word alone."""
    return words[max(first - 1, 0)].text in SHADES or words[min(last + 1, len(words) - 1)].text in _COATINGS


def _joined(caption: str, mark: int, beyond: int) -> bool:
    inside = 0 <= mark < len(caption) and 0 <= beyond < len(caption)
    return inside and caption[mark] in "-/+." and caption[beyond].isalnum()


@functools.cache
def seed() -> Lexicon:
    """The fixed lists."""
    return Lexicon(terms(), {})


@functools.cache
def terms() -> tuple[Term, ...]:
    """Every term of the fixed lists, one per spelling and kind."""
    usages = (Term("usage", name, frozenset((name,))) for name in USAGES)
    details = (("season", SEASONS), ("material", MATERIALS), ("pattern", PATTERNS), ("part", PARTS))
    stated = (Term(kind, name, frozenset((v,)), form) for kind, block in details for form, v, name in spellings(block))
    return (*_colours(), *_articles(), *_wearers(), *usages, *stated, *_inflected())


def _inflected() -> Iterator[Term]:
    """Things in both numbers and actions in each form that is no other form's spelling, by lemminflect."""
    from lemminflect import getInflection

    forms = {"thing": {"NN": "singular", "NNS": "plural"}, "action": {tag: tag for tag in ("VB", "VBZ", "VBG", "VBD")}}
    found: dict[tuple[Kind, str], tuple[str, set[str]]] = {}
    for kind, block in (("thing", THINGS), ("action", ACTIONS)):
        for _, value, lemma in spellings(block):
            for tag, form in forms[kind].items():
                for text in getInflection(lemma, tag)[:1]:
                    found.setdefault((kind, text), (form, set()))[1].add(value)
    for (kind, text), (form, values) in found.items():
        yield Term(kind, text, frozenset(values), form)


def _colours() -> Iterator[Term]:
    for name in COLOURS:
        yield Term("colour", name, frozenset((name,)))
    for name, values in _COLOUR_WORDS.items():
        yield Term("colour", name, frozenset(values))


def _articles() -> Iterator[Term]:
    """Articles merged by spelling: "Shoe" stands for every type that lists it."""
    found: dict[tuple[str, ...], Term] = {}

    def add(text: str, article: str, form: str) -> None:
        term = Term("article", text, frozenset((article,)), form)
        known = found.get(term.key)
        values = term.values | known.values if known else term.values
        found[term.key] = Term("article", known.text if known else text, values, known.form if known else form)

    for line in _ARTICLES.strip().splitlines():
        article, pairs = line.split(": ")
        for pair in pairs.split(", "):
            for text, form in zip(pair.split(" / "), ("singular", "plural"), strict=True):
                if text != "-":
                    add(text, article, form)
    for article in ARTICLE_TYPES:
        plural = article.endswith("s") and article not in _PLAIN_SINGULAR
        add(article, article, "plural" if plural else "singular")
    yield from found.values()


def _wearers() -> Iterator[Term]:
    for form, texts in _WEARERS.items():
        for text, value in zip(texts, ("Men", "Women", "Boys", "Girls"), strict=True):
            if text:
                yield Term("gender", text, frozenset((value,)), form)
    for text in _EVERYONE:
        yield Term("gender", text, frozenset(("Unisex",)), "everyone")
