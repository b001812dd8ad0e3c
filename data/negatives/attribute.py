"""Attribute edits: another colour, wearer, usage, season, material, pattern, or part of the outfit."""

from __future__ import annotations

from collections.abc import Iterator

from data.negatives.edits import Draft, Source, replace, uniforms
from data.negatives.ontology import Kind
from data.negatives.vocabulary import Vocabulary


def drafts(source: Source, vocabulary: Vocabulary, kind: Kind, tries: int) -> Iterator[Draft | str]:
    """Up to `tries` drafts of one kind, or the reasons why there is none.

    All tries share one acceptance number: a caption is edited or not by one decision, however many candidates are
    asked for, so that more candidates do not undo the balance.
    """
    slot = source.slots.get(kind)
    if slot is None:
        yield "no_slot"
        return
    choice = vocabulary.attribute_pool(source.product, source.caption_kind, slot.term).choice(slot.term)
    if choice is None:
        yield "no_alternative"
        return
    threshold, *places = uniforms(source, kind, 1 + min(tries, len(choice.terms)))
    for place in places:
        term, acceptance = choice.draw(place)
        yield replace(source, slot, term, threshold < acceptance)
