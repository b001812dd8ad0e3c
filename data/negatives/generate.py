"""From captions to hard negatives: drafts of every edit, filtered, with every refusal counted.

The negatives of a caption depend on the seed, its row, its kind and its group's facts, and on nothing else: neither on
the order of the rows nor on which other rows are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from data.negatives import attribute, relation
from data.negatives import object as objects
from data.negatives.captions import CAPTION_KINDS, CaptionKind, Product, read, slots
from data.negatives.edits import EDITS, Draft, Draws, Negative, Source, finish
from data.negatives.filters import Facts
from data.negatives.vocabulary import Vocabulary

Tally = Counter[tuple[CaptionKind, str, str]]  # (caption kind, edit, "captions" | "kept" | a reason) -> count


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
        self.tally: Tally = Counter()
        self.vocabulary = Vocabulary(p for p in everything if p.row_id in training)
        self._facts = group_facts(everything)

    def negatives(self, product: Product) -> Iterator[tuple[CaptionKind, str, dict[str, list[Negative]]]]:
        """(caption kind, caption, {edit: negatives}) for each caption of the product."""
        facts = self._facts[product.group]
        for caption_kind in CAPTION_KINDS:
            caption = product.caption(caption_kind)
            if caption is None:
                continue
            reading = read(caption)
            source = Source(product, caption_kind, reading, slots(reading, product, caption_kind), facts)
            yield caption_kind, caption, {edit: self._edit(source, edit) for edit in EDITS}

    def _edit(self, source: Source, edit: str) -> list[Negative]:
        """The negatives of one edit, in the order drawn."""
        kept: dict[str, Negative] = {}
        self.tally[source.caption_kind, edit, "captions"] += 1
        for draft in self._drafts(source, edit):
            refused = draft if isinstance(draft, str) else self._refuse(source, draft, kept)
            if refused is None:
                negative = finish(source.reading.caption, draft)  # type: ignore[arg-type]
                kept[negative.negative] = negative
            self.tally[source.caption_kind, edit, refused or "kept"] += 1
        return list(kept.values())[: self.candidates]

    def _drafts(self, source: Source, edit: str) -> Iterator[Draft | str]:
        if edit == "swap":
            return relation.drafts(source)
        draws = Draws(self.seed, source.product.row_id, source.caption_kind, edit)
        if edit == "article":
            return objects.drafts(source, self.vocabulary, draws, self.candidates)
        return attribute.drafts(source, self.vocabulary, edit, draws, self.candidates)

    @staticmethod
    def _refuse(source: Source, draft: Draft, kept: Mapping[str, Negative]) -> str | None:
        if draft.term is not None and (reason := source.facts.reject(draft.term)):
            return reason
        negative = finish(source.reading.caption, draft).negative
        if negative in kept:
            return "repeated"
        return "is_a_caption" if source.facts.is_caption(negative) else None


def group_facts(products: Iterable[Product]) -> dict[int, Facts]:
    """The facts of every group."""
    groups: dict[int, list[Product]] = {}
    for product in products:
        groups.setdefault(product.group, []).append(product)
    return {group: Facts.of(members) for group, members in groups.items()}


def interleave(negatives: Mapping[str, list[Negative]], edits: Iterable[str], limit: int) -> list[Negative]:
    """Up to `limit` negatives, one of each edit in turn, so that every edit of a type is heard."""
    lists = [negatives[edit] for edit in edits]
    rounds = (found[turn] for turn in range(limit) for found in lists if turn < len(found))
    return [negative for negative, _ in zip(rounds, range(limit), strict=False)]
