"""Words that say the same as another, or more generally or narrowly: none of them makes a false caption.

`WordNet` reads the database files of Princeton WordNet (index.noun, data.noun, ...), as Debian's wordnet-base or the
original archive has them [wndb(5WN)]; no package index carries them, so without them a small list of this project's own
stands in. Both answer `related`.
"""

from __future__ import annotations

import functools
import mmap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from data.negatives.lexicon import Term
from data.params import UserError

_SPEECH = {
    "article": "noun", "thing": "noun", "gender": "noun", "material": "noun", "season": "noun", "action": "verb",
    "colour": "adj", "usage": "adj", "pattern": "adj", "part": "noun",
}  # fmt: skip
# Words of the catalog and of general captions, one family a line: the first is the general word for the others, which
# are brothers; "=" joins synonyms.
_FAMILIES = """
person = human: man = guy = gentleman, woman = lady, child = kid, adult
child = kid = youngster: boy, girl, baby, toddler
animal: dog = puppy, cat = kitten, horse = pony, cow = bull, sheep = lamb, elephant, giraffe, zebra, bird, bear
vehicle: car = automobile, bus = coach, truck = lorry, train, boat = ship, airplane = plane = jet, bike = cycle
bike = cycle: bicycle, motorcycle = motorbike
room: kitchen, bathroom = restroom, bedroom, office
furniture: bench, chair, couch = sofa, bed, table, desk
seat: bench, chair, couch = sofa
food = meal: pizza, sandwich, cake, salad, donut = doughnut, fruit
fruit: banana, apple
way: street = road = avenue, path
clothes = clothing = garment = outfit: shirt, top, dress, trouser = pant, jacket, skirt, jean, short, sweater
sweater = pullover = jumper
shirt: t-shirt = tshirt = tee
footwear: shoe, sandal, boot, sneaker = trainer
shoe: casual shoe, sports shoe, formal shoe, sneaker = trainer, loafer
bag: handbag = hand bag = purse, backpack = rucksack, laptop bag, messenger bag, duffel bag = duffle bag, trolley bag
cloth = fabric: cotton, linen, silk, satin, velvet, wool, denim, canvas, fleece
leather: suede
patterned = printed: striped, checked = check, floral, polka dot
solid = plain
autumn = fall
move: walk, run, jump
lie = lay
grey = gray
purple = violet
golden = gold
"""


class Thesaurus(Protocol):
    """Says whether two words are synonyms, or one a more general word than the other."""

    def related(self, one: str, other: str, speech: str) -> bool: ...


class SmallThesaurus:
    """The built-in families. A word has one sense: lines that share a word speak of the same."""

    def __init__(self, families: str = _FAMILIES) -> None:
        self._of: dict[str, int] = {}
        self._general: dict[int, set[int]] = defaultdict(set)
        for line in families.strip().splitlines():
            head, _, members = line.partition(": ")
            top = self._sense(head)
            for member in members.split(", ") if members else ():
                self._general[self._sense(member)].add(top)

    def _sense(self, synonyms: str) -> int:
        words = synonyms.split(" = ")
        known = (self._of[word] for word in words if word in self._of)
        sense = next(known, len(self._of))
        self._of.update(dict.fromkeys(words, sense))
        return sense

    def related(self, one: str, other: str, speech: str) -> bool:
        """Whether the words share a sense, or one heads a family that the other is in, at any depth."""
        if one not in self._of or other not in self._of:
            return False
        first, second = {self._of[one]}, {self._of[other]}
        return bool(first & _up(second, self._general) or second & _up(first, self._general))


class WordNet:
    """The database of a folder, read by offset when a word is asked for.

    Raises:
        UserError: the folder lacks a file, or a line is not in the format.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        missing = [name for speech in ("noun", "verb", "adj") for name in (f"index.{speech}", f"data.{speech}")
                   if not (folder / name).is_file()]  # fmt: skip
        if missing:
            raise UserError(f"{folder}: no {missing[0]} there. Give negatives.wordnet the folder of WordNet's database "
                            "files (Debian: apt install wordnet-base, then /usr/share/wordnet), or null.")  # fmt: skip

    def related(self, one: str, other: str, speech: str) -> bool:
        """Whether some senses of the words share a synset, or one's is above the other's, at any depth."""
        index = self._index(speech)
        first, second = (set(index.get(word.replace(" ", "_"), ())) for word in (one, other))
        general = _Above(self, speech)
        return bool(first & _up(second, general) or second & _up(first, general))

    @functools.cache  # noqa: B019 - one object per run
    def _index(self, speech: str) -> dict[str, tuple[int, ...]]:
        """{lemma: offsets of its synsets}."""
        path, found = self._folder / f"index.{speech}", {}
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.startswith("  "):
                    continue
                fields = line.split()
                try:
                    found[fields[0]] = tuple(int(offset) for offset in fields[-int(fields[2]) :])
                except (IndexError, ValueError):
                    why = "not a line of a WordNet index. Install the files again."
                    raise UserError(f"{path}, line {number}: {why}") from None
        return found

    @functools.cache  # noqa: B019
    def above(self, speech: str, offset: int) -> frozenset[int]:
        """Offsets of the synsets that are more general, or of an adjective its near ones."""
        data = self._data(speech)
        end = data.find(b"\n", offset)
        fields = data[offset : end if end >= 0 else len(data)].decode().split(" | ")[0].split()
        try:
            if int(fields[0]) != offset:
                raise ValueError
            begin = 4 + 2 * int(fields[3], 16)
            pointers = [fields[begin + 1 + 4 * i : begin + 3 + 4 * i] for i in range(int(fields[begin]))]
            return frozenset(int(to) for symbol, to in pointers if symbol in ("@", "@i", "&"))
        except (IndexError, ValueError):
            why = "no synset there, where the index points to. Install index and data files of one version."
            raise UserError(f"{self._folder / f'data.{speech}'}, byte {offset}: {why}") from None

    @functools.cache  # noqa: B019
    def _data(self, speech: str) -> mmap.mmap:
        with (self._folder / f"data.{speech}").open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


class _Above:
    """WordNet's general synsets as a mapping. Adjectives go one step only: in the end each is near every other."""

    def __init__(self, wordnet: WordNet, speech: str) -> None:
        self._wordnet, self._speech = wordnet, speech

    def get(self, offset: int, _: object = None) -> Iterable[int]:
        return self._wordnet.above(self._speech, offset)

    @property
    def steps(self) -> int | None:
        return 1 if self._speech == "adj" else None


def _up(starts: Iterable[int], general: dict[int, set[int]] | _Above) -> set[int]:
    """The synsets and all that are above them."""
    found, fresh = set(starts), set(starts)
    limit = general.steps if isinstance(general, _Above) else None
    steps = 0
    while fresh and steps != limit:
        fresh = {above for start in fresh for above in general.get(start, ())} - found
        found |= fresh
        steps += 1
    return found


class SameMeaning:
    """Whether a word that an edit puts in says the same as the one it takes out; each pair is looked up once."""

    def __init__(self, thesaurus: Thesaurus) -> None:
        self._thesaurus = thesaurus
        self._known: dict[tuple[Term, Term], str | None] = {}

    def reason(self, old: Term, new: Term) -> str | None:
        """ "identity", "lemma" or "thesaurus", or None for another meaning."""
        if (old, new) not in self._known:
            self._known[old, new] = self._judge(old, new)
        return self._known[old, new]

    def _judge(self, old: Term, new: Term) -> str | None:
        if "".join(old.key) == "".join(new.key):
            return "identity"
        first, second = (set(_lemmas(term)) for term in (old, new))
        if first & second:
            return "lemma"
        speech = _SPEECH[new.kind]
        found = any(self._thesaurus.related(one, other, speech) for one in first for other in second)
        return "thesaurus" if found else None


def _lemmas(term: Term) -> Iterator[str]:
    """A term's words with the last one as written and reduced to its lemma, joined by spaces and by hyphens."""
    from lemminflect import getLemma

    *before, last = term.key
    tag = {"verb": "VERB", "adj": "ADJ"}.get(_SPEECH[term.kind], "NOUN")
    for word in {last, *getLemma(last, tag)}:
        yield " ".join((*before, word))
        yield "-".join((*before, word))
