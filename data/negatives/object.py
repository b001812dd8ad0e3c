"""Object edits: another article type, from the same sub category, the same department or the whole catalog."""

from __future__ import annotations

from collections.abc import Iterator

from data.negatives.edits import Draft, Draws, Source, replace
from data.negatives.vocabulary import Choice, Level, Pool, Vocabulary

# Near articles make the harder negatives: half of the draws stay in the sub category.
_LEVELS: tuple[Level, ...] = ("sub_category", "sub_category", "master_category", "all")
_WIDER: dict[Level, Level | None] = {"sub_category": "master_category", "master_category": "all", "all": None}


def drafts(source: Source, vocabulary: Vocabulary, draws: Draws, tries: int) -> Iterator[Draft | str]:
    """Up to `tries` drafts, or the reasons why there is none; acceptance is shared as in attribute.py."""
    slot = source.slots.get("article")
    if slot is None:
        yield "no_slot"
        return
    threshold = next(draws)
    for _ in range(tries):
        level = _LEVELS[int(next(draws) * len(_LEVELS))]
        found = _choice(source, vocabulary, level)
        if found is None:
            yield "no_alternative"
            continue
        pool, choice = found
        term = choice.draw(next(draws))
        if threshold >= pool.acceptance(slot.term, term):
            yield "balance"
        else:
            yield replace(source, slot, term)


def _choice(source: Source, vocabulary: Vocabulary, level: Level | None) -> tuple[Pool, Choice] | None:
    """The pool and choice at `level`, or at the next wider one that has any."""
    slot = source.slots["article"]
    beside = source.reading.words[slot.first - 1].text if source.caption_kind == "title" and slot.first else None
    while level is not None:
        pool = vocabulary.article_pool(source.product, source.caption_kind, slot.term, level, beside)
        if choice := pool.choice(slot.term):
            return pool, choice
        level = _WIDER[level]
    return None
