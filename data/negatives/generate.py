"""From captions to hard negatives: drafts of every edit, filtered, with every refusal counted.

The negatives of a caption depend on the seed, its row, its kind and its group's facts, and on nothing else: neither on
the order of the rows nor on which other rows are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from data.negatives import attribute, relation
from data.negatives import object as objects
from data.negatives.captions import CAPTION_KINDS, CaptionKind, Product, read, slots
from data.negatives.edits import EDITS, Draft, Negative, Source, finish, seed_of
from data.negatives.filters import Facts
from data.negatives.vocabulary import Vocabulary

Tally = dict[tuple[CaptionKind, str], Counter[str]]  # (caption kind, edit) -> "captions" | "kept" | a reason -> count


class Generator:
    """Hard negatives of any product of `products`, with replacement words from those for which `teaches` holds.

    Args:
        products: the whole dataset, all splits: the facts of a group come from every product in it.
        teaches: row ids of the training split, whose captions are the vocabulary.
        seed: draws another set of negatives.
        candidates: at most this many distinct negatives per caption and edit.
    """

    def __init__(self, products: Iterable[Product], teaches: Iterable[str], *, seed: int, candidates: int) -> None:
        everything = list(products)
        training = set(teaches)
        self.seed, self.candidates = seed, candidates
        self.tally: Tally = {(kind, edit): Counter() for kind in CAPTION_KINDS for edit in EDITS}
        self.vocabulary = Vocabulary(p for p in everything if p.row_id in training)
        self._facts = group_facts(everything)

    def negatives(self, product: Product) -> Iterator[tuple[CaptionKind, str, dict[str, list[Negative]]]]:
        """(caption kind, caption, {edit: negatives}) for each caption of the product."""
        facts = self._facts[product.group]
        seed = seed_of(self.seed, product.row_id)
        for caption_kind in CAPTION_KINDS:
            caption = product.caption(caption_kind)
            if caption is None:
                continue
            reading = read(caption)
            source = Source(product, caption_kind, reading, slots(reading, product, caption_kind), facts, seed)
            yield caption_kind, caption, {edit: self._edit(source, edit) for edit in EDITS}

    def _edit(self, source: Source, edit: str) -> list[Negative]:
        """The negatives of one edit, in the order drawn."""
        caption, facts = source.reading.caption, source.facts
        tally = self.tally[source.caption_kind, edit]
        kept: dict[str, Negative] = {}
        tally["captions"] += 1
        for draft in self._drafts(source, edit):
            if isinstance(draft, str):
                tally[draft] += 1
                continue
            refused = facts.reject(draft.term) if draft.term else None
            if refused is None:
                made = finish(caption, draft)
                if made.negative in kept:
                    refused = "repeated"
                elif facts.is_caption(made.negative):
                    refused = "is_a_caption"
                else:
                    kept[made.negative] = made
            tally[refused or "kept"] += 1
        return list(kept.values())

    def _drafts(self, source: Source, edit: str) -> Iterable[Draft | str]:
        if edit == "swap":
            return relation.drafts(source)
        if edit == "article":
            return objects.drafts(source, self.vocabulary, self.candidates)
        return attribute.drafts(source, self.vocabulary, edit, self.candidates)


def group_facts(products: Iterable[Product]) -> dict[int, Facts]:
    """The facts of every group."""
    groups: dict[int, list[Product]] = {}
    for product in products:
        groups.setdefault(product.group, []).append(product)
    return {group: Facts.of(members) for group, members in groups.items()}


def interleave(lists: Sequence[list[Negative]], limit: int) -> list[Negative]:
    """Up to `limit` negatives, one of each list in turn, so that every edit of a type is heard."""
    filled = [found for found in lists if found]
    if len(filled) == 1:
        return filled[0][:limit]
    return [found[turn] for turn in range(limit) for found in filled if turn < len(found)][:limit]
