"""The options of ARO's order tasks: a caption and four of its words in another order, made once and kept.

Chance and taggers differ from machine to machine, so the strings are the benchmark: they are made on first use from a
fixed seed, stored beside the captions, and from then on only read. Their hash stands in the record of every score.
Unlike the released code, which takes nltk's words for the 3-grams, all four use the words of spaCy's tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.params import UserError
from training.official.files import read_json

FILE = "order_options.json"
SEED, MOST = 1, 30  # words of an option
GONE = re.compile(r"[.!\"()*#:;~]")
NOUNS, ADJECTIVES = ("NOUN", "PROPN"), ("ADJ",)


def options(folder: Path, captions: Sequence[str]) -> list[list[str]]:
    """Five options of each caption, the caption itself first, all cleaned alike.

    Read from `folder`, or made and stored there. Raises `UserError` if those in it are of other captions.
    """
    path, digest = folder / FILE, hashlib.sha256("\n".join(captions).encode()).hexdigest()
    if not path.is_file():
        content = {"captions": digest, "seed": SEED, "options": _shuffled(captions)}
        partial = path.with_name(f".{FILE}.{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(content, indent=0, ensure_ascii=False), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise UserError(
                f"{path}: the shuffled captions cannot be stored ({error}). Make {folder} writable."
            ) from None
    found = read_json(folder, FILE)
    if not isinstance(found, dict) or found.get("captions") != digest or len(found["options"]) != len(captions):
        raise UserError(f"{path}: was made of other captions. Remove it, and it is made anew.")
    return [[clean(caption), *others] for caption, others in zip(captions, found["options"], strict=True)]


def clean(text: str) -> str:
    """Lower case, without `. ! " ( ) * # : ; ~`, single blanks, at most 30 words: what ARO does to every option.

    >>> clean('A "red"  couch, by the door.')
    'a red couch, by the door'
    """
    return " ".join(GONE.sub(" ", text.lower()).split()[:MOST])


def _shuffled(captions: Sequence[str]) -> list[list[str]]:
    from data.corpus import tag

    found = []
    for number, (caption, tokens) in enumerate(zip(captions, tag(captions), strict=True)):
        words = [(caption[token.start : token.end], token.pos) for token in tokens if caption[token.start].strip()]
        found.append([clean(" ".join(order)) for order in orders(words, np.random.default_rng([SEED, number]))])
    return found


def orders(tagged: Sequence[tuple[str, str]], chance: np.random.Generator) -> list[list[str]]:
    """The words of (word, coarse tag) in four other orders.

    Nouns among their places and adjectives among theirs; all other words among theirs; words within each 3-gram; the
    3-grams.
    """
    words = [word for word, _ in tagged]
    nouns, adjectives = ([i for i, (_, pos) in enumerate(tagged) if pos in wanted] for wanted in (NOUNS, ADJECTIVES))
    named = {*nouns, *adjectives}
    others = [i for i in range(len(words)) if i not in named]
    trigrams = [words[start : start + 3] for start in range(0, len(words), 3)]
    within = [[trigram[i] for i in chance.permutation(len(trigram))] for trigram in trigrams]
    among = [trigrams[i] for i in chance.permutation(len(trigrams))]
    return [
        _permuted(_permuted(words, nouns, chance), adjectives, chance),
        _permuted(words, others, chance),
        [word for trigram in within for word in trigram],
        [word for trigram in among for word in trigram],
    ]


def _permuted(words: Sequence[str], places: Sequence[int], chance: np.random.Generator) -> list[str]:
    """`words` with those at `places` in another order."""
    made = list(words)
    for place, other in zip(places, chance.permutation(len(places)), strict=True):
        made[place] = words[places[other]]
    return made
