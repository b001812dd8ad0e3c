"""Object edits: another article type, from the same sub category, the same department or the whole catalog."""

from __future__ import annotations

from collections.abc import Iterator

from data.negatives.edits import Draft, Source, replace, uniforms
from data.negatives.ontology import Kind
from data.negatives.vocabulary import Choice, Level, Vocabulary

# Near articles make the harder negatives: half of the draws stay in the sub category.
_LEVELS: tuple[Level, ...] = ("sub_category", "sub_category", "master_category", "all")


def drafts(source: Source, vocabulary: Vocabulary, kind: Kind, tries: int) -> Iterator[Draft | str]:
    """Up to `tries` drafts, or the reasons why there is none; acceptance is shared as in attribute.py.

    A try whose level offers nothing is lost. Falling back on a wider level would send more words one way than back.
    """
    slot = source.slots.get(kind)
    if slot is None:
        yield "no_slot"
        return
    beside = source.reading.words[slot.first - 1].text if source.caption_kind == "title" and slot.first else None
    threshold, *places = uniforms(source, kind, 1 + tries)
    choices: dict[Level, Choice | None] = {}
    for place in places:
        number, within = divmod(place * len(_LEVELS), 1.0)  # one number chooses the level and the word in it
        level = _LEVELS[int(number)]
        if level not in choices:
            pool = vocabulary.article_pool(source.product, source.caption_kind, slot.term, level, beside)
            choices[level] = pool.choice(slot.term)
        choice = choices[level]
        if choice is None:
            yield "no_alternative"
            continue
        term, acceptance = choice.draw(within)
        yield replace(source, slot, term, threshold < acceptance)
