"""Same meaning: WordNet's file format read from a small fixture, the built-in families, inflections."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.negatives.lexicon import find
from data.negatives.synonyms import SameMeaning, SmallThesaurus, WordNet
from data.params import UserError

LICENCE = "  1 This line belongs to the licence at the head of the file.  \n"
# (word forms of a synset, words of the synsets above it)
NOUNS = [
    (["animal", "creature"], []), (["canine"], ["animal"]), (["dog", "domestic_dog"], ["canine"]),
    (["puppy"], ["dog"]), (["cat"], ["animal"]), (["dog", "chap"], ["person"]), (["person"], []),
    (["casual_shoe"], ["shoe"]), (["shoe"], []),
]  # fmt: skip
ADJECTIVES = [(["red", "crimson"], ["coloured"]), (["coloured"], ["red", "blue"]), (["blue"], ["coloured"])]


def database(folder: Path) -> Path:
    """The six files, written as wndb(5WN) says."""
    for speech, letter, synsets in (("noun", "n", NOUNS), ("adj", "a", ADJECTIVES), ("verb", "v", [])):
        pointer = "&" if letter == "a" else "@"
        offsets: dict[str, list[int]] = {}
        data = ""
        for turn in (0, 1):  # offsets have eight digits in any case, so that the second turn knows them all
            data, known = LICENCE, offsets
            offsets = {}
            for words, above in synsets:
                for word in words:
                    offsets.setdefault(word, []).append(len(data))
                forms = " ".join(f"{word} {number:x}" for number, word in enumerate(words))
                ends = [known.get(word, [0])[0] for word in above] if turn else [0] * len(above)
                pointers = "".join(f"{pointer} {end:08d} {letter} 0000 " for end in ends)
                data += f"{len(data):08d} 05 {letter} {len(words):02x} {forms} {len(above):03d} {pointers}| a gloss  \n"
        index = LICENCE + "".join(
            f"{word} {letter} {len(found)} 1 {pointer} {len(found)} 0 {' '.join(f'{o:08d}' for o in found)}  \n"
            for word, found in sorted(offsets.items())
        )
        (folder / f"data.{speech}").write_text(data)
        (folder / f"index.{speech}").write_text(index)
    return folder


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    return WordNet(database(tmp_path))


@pytest.mark.parametrize(
    ("one", "other", "speech", "expected"),
    [
        ("animal", "creature", "noun", True), ("dog", "animal", "noun", True), ("animal", "puppy", "noun", True),
        ("dog", "person", "noun", True), ("dog", "cat", "noun", False), ("casual shoe", "shoe", "noun", True),
        ("dog", "unheard", "noun", False), ("red", "crimson", "adj", True), ("red", "coloured", "adj", True),
        ("red", "blue", "adj", False), ("dog", "dog", "verb", False),
    ],
)  # fmt: skip
def test_synonyms_and_general_words_of_any_sense(
    wordnet: WordNet, one: str, other: str, speech: str, expected: bool
) -> None:
    assert wordnet.related(one, other, speech) is wordnet.related(other, one, speech) is expected


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no index.noun there.*wordnet-base"):
        WordNet(tmp_path)


def test_files_of_two_versions_are_named(tmp_path: Path) -> None:
    folder = database(tmp_path)
    (folder / "data.noun").write_text("x" + (folder / "data.noun").read_text())
    with pytest.raises(UserError, match=r"data.noun, byte \d+: no synset there"):
        WordNet(folder).related("dog", "cat", "noun")
    (folder / "index.adj").write_text("red a many\n")
    with pytest.raises(UserError, match=r"index\.adj, line 1"):
        WordNet(folder).related("red", "blue", "adj")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("T-shirt", "Tshirt", "identity"), ("Shoe", "Shoes", "lemma"), ("Sitting", "Sits", "lemma"),
        ("T-shirts", "Shirts", "thesaurus"), ("Casual Shoes", "Shoes", "thesaurus"), ("dog", "puppy", "thesaurus"),
        ("Grey", "Gray", "thesaurus"), ("dog", "cat", None), ("Jeans", "Shirts", None), ("Men", "Women", None),
        ("sitting", "standing", None),
    ],
)  # fmt: skip
def test_a_word_is_judged_by_its_lemma(old: str, new: str, reason: str | None) -> None:
    meaning = SameMeaning(SmallThesaurus())
    one, other = (find(text)[0].term for text in (old, new))
    assert meaning.reason(one, other) == meaning.reason(other, one) == reason


def test_families_nest() -> None:
    small = SmallThesaurus("clothes: shirt = top, shoe\nshirt: tee\nshoe: boot = bootie")
    for one, other in (("tee", "clothes"), ("top", "shirt"), ("bootie", "boot"), ("top", "tee")):
        assert small.related(one, other, "noun")
        assert small.related(other, one, "noun")
    assert not small.related("tee", "boot", "noun")
