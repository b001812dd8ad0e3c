"""Words as the audit reads them: stems, what an edit put in, and which words mean the same or more than others.

Written for the audit alone. It shares no list and no rule with the generator: the generator's families say which values
may overlap, these lines say which words a shop uses for one thing, so that each can find what the other forgot.
"""

from __future__ import annotations

import functools
import re
from difflib import SequenceMatcher
from typing import NamedTuple

from data.text import tokens

Phrase = tuple[str, ...]

# Words for one thing.
_SYNONYMS = """
tshirt, tee
trouser, pant
pullover, sweater, jumper
sweatshirt, hoodie
saree, sari
perfume, fragrance, eau de toilette
deodorant, deo, body spray
handbag, hand bag, purse
trainer, sports shoe, sport shoe, running shoe
slipper, flip flop, thong
kurti, short kurta
eyeliner, eye liner
nail polish, nail enamel, nail lacquer, nail colour
lipstick, lip colour, lip color
scarf, stole
swimwear, swimsuit
bathrobe, bath robe
brief, panty
necklace, chain
gold, golden
grey, gray
navy, navy blue
violet, purple
burgundy, wine
fuchsia, magenta
charcoal, dark grey
lavender, lilac
multi, multicolour, multicolor, multicoloured, multicolored
man, gent, male, menswear
woman, lady, female, womenswear
girl, daughter
boy, son
sports, sport, athletic, sporty
formal, office
ethnic, traditional, indian wear
casual, everyday
summer, spring summer
autumn, fall
leather, genuine leather
denim, jean fabric
stripe, striped, stripes
print, printed
check, checked, checkered, checks
"""
# "word < general words": whatever is the first is each of the others too.
_KINDS = """
navy blue < blue
turquoise blue < turquoise, blue
sky blue < blue
royal blue < blue
coffee brown < brown
mushroom brown < brown
lime green < green
sea green < green
fluorescent green < green
grey melange < grey
dark grey < grey
burgundy < red
maroon < red
khaki < beige
olive < green
off white < white
casual shoe < shoe, footwear
sports shoe < shoe, footwear
formal shoe < shoe, footwear
sandal < footwear
flip flop < footwear
heel < footwear
flat < footwear
sports sandal < sandal
tshirt < top, topwear, apparel
shirt < topwear, apparel
polo shirt < tshirt, shirt
kurta < topwear, ethnic wear
tunic < top
jean < bottomwear, trouser
track pant < trouser, bottomwear
capri < bottomwear
leggings < bottomwear
backpack < bag
rucksack < bag, backpack
handbag < bag
clutch < bag
laptop bag < bag
duffel bag < bag
messenger bag < bag
trolley bag < bag
sunglasses < eyewear
watch < accessory
bracelet < jewellery
bangle < jewellery
earring < jewellery
ring < jewellery
pendant < jewellery
necklace < jewellery
cap < headwear
boy < kid, child
girl < kid, child
"""
# A value beside which no other of its column is certainly false.
UNSPECIFIC = {"base_colour": "Multi", "gender": "Unisex"}
_ARTICLES = {"a", "an", "the"}
_JOINTS = re.compile(r"\s*(?:,|&|\+|/|\band\b|\bwith\b|\bplus\b|\bor\b)\s*", re.I)  # either side may come first


class Claim(NamedTuple):
    """What an edit changed, as stems: phrases put in and taken out; `moved` if it only put words elsewhere."""

    put_in: tuple[Phrase, ...]
    taken_out: tuple[Phrase, ...]
    moved: bool


@functools.lru_cache(maxsize=1 << 17)
def stems(text: str) -> Phrase:
    """The words of a caption or value in their base form, without a/an/the: "Men's T-Shirts" is (man, tshirt)."""
    words = [word.removesuffix("'s") for word, _, _ in tokens(text)]
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "t" and word in ("shirt", "shirts"):
            joined[-1] = "tshirt"
        else:
            joined.append(_base(word))
    return tuple(word for word in joined if word not in _ARTICLES)


@functools.cache
def _base(word: str) -> str:
    from lemminflect import getLemma

    found = getLemma(word, "NOUN") if word.isalpha() else ()
    return str(found[0]) if found else word


def claim(caption: str, negative: str) -> Claim:
    """What the negative says that the caption does not, from the two texts alone."""
    before, after = stems(caption), stems(negative)
    put_in, taken_out = [], []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            put_in += [after[k:m]] if m > k else []
            taken_out += [before[i:j]] if j > i else []
    return Claim(tuple(put_in), tuple(taken_out), sorted(before) == sorted(after))


def says(text: Phrase, phrase: Phrase) -> bool:
    """Whether the stems of `phrase` stand in `text` next to each other in this order."""
    size = len(phrase)
    return any(text[i : i + size] == phrase for i in range(len(text) - size + 1))


def same_parts(caption: str, negative: str) -> bool:
    """Whether the two differ only in the order of parts joined by "and", "with", "/" and the like."""
    one, other = (sorted(map(stems, _JOINTS.split(text))) for text in (caption, negative))
    return len(one) > 1 and one == other


@functools.cache
def implied(phrase: Phrase) -> frozenset[Phrase]:
    """Everything that is true of what `phrase` names: its synonyms, the general words of each, and itself."""
    same, general = _tables()
    found: set[Phrase] = set()
    ahead = [phrase]
    while ahead:
        word = ahead.pop()
        if word not in found:
            found.add(word)
            ahead += [*same.get(word, ()), *general.get(word, ())]
    return frozenset(found)


def implications(text: Phrase) -> set[Phrase]:
    """What the words of a caption or value imply, by the longest known phrases that do not lie in one another."""
    found: set[Phrase] = set()
    place = 0
    while place < len(text):
        size = next((n for n in range(_longest(), 1, -1) if text[place : place + n] in _known()), 1)
        found |= implied(text[place : place + size])
        place += size
    return found


@functools.cache
def _known() -> frozenset[Phrase]:
    same, general = _tables()
    return frozenset((*same, *general))


@functools.cache
def _longest() -> int:
    return max(map(len, _known()))


@functools.cache
def _tables() -> tuple[dict[Phrase, set[Phrase]], dict[Phrase, set[Phrase]]]:
    same: dict[Phrase, set[Phrase]] = {}
    for line in _SYNONYMS.strip().splitlines():
        members = {stems(word) for word in line.split(",")}
        for member in members:
            same.setdefault(member, set()).update(members - {member})
    general: dict[Phrase, set[Phrase]] = {}
    for line in _KINDS.strip().splitlines():
        word, others = line.split("<")
        general.setdefault(stems(word), set()).update(map(stems, others.split(",")))
    return same, general
