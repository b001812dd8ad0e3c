"""From captions to hard negatives: drafts of every edit, filtered, with every refusal counted.

The negatives of a caption depend on the seed, its row, its kind and its group's facts, and on nothing else: neither on
the order of the rows nor on which other rows are asked for.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from data.negatives import attribute, relation
from data.negatives import object as objects
from data.negatives.captions import CAPTION_KINDS, CaptionKind, Product, read, slots
from data.negatives.edits import EDITS, Draft, Negative, Source, finish, seed_of
from data.negatives.filters import Facts
from data.negatives.judges import Judges
from data.negatives.lexicon import Lexicon
from data.negatives.lexicon import seed as seed_lexicon
from data.negatives.ontology import COLUMN
from data.negatives.tagger import prefetch
from data.negatives.vocabulary import Vocabulary

Tally = dict[tuple[str, str], Counter[str]]  # (caption kind, edit) -> "captions" | "kept" | a reason -> count


class Generator:
    """Hard negatives of any product of `products`, with replacement words from those for which `teaches` holds.

    Args:
        products: the whole dataset, all splits: the facts of a group come from every product in it.
        teaches: row ids of the training split, whose captions are the vocabulary.
        seed: draws another set of negatives.
        candidates: at most this many distinct negatives per caption and edit.
        judges: what decides besides the facts of the group.
    """

    def __init__(
        self, products: Iterable[Product], teaches: Iterable[str], *, seed: int, candidates: int,
        judges: Judges | None = None,
    ) -> None:  # fmt: skip
        everything = list(products)
        self._teaches = set(teaches)
        self.seed, self.candidates = seed, candidates
        self.judges = judges or Judges()
        self._tally: Tally = {(kind, edit): Counter() for kind in CAPTION_KINDS for edit in EDITS}
        self._captions: Counter[str] = Counter()
        self.lexicon = lexicon_of(everything)
        prefetch(caption for p in everything if p.in_general for kind in CAPTION_KINDS if (caption := p.caption(kind)))
        self.vocabulary = Vocabulary((p for p in everything if p.row_id in self._teaches), self.lexicon)
        self._facts = group_facts(everything, self.lexicon)

    def negatives(self, product: Product) -> Iterator[tuple[CaptionKind, str, dict[str, list[Negative]]]]:
        """(caption kind, caption, {edit: its negatives, where it has any}) for each caption of the product."""
        facts = self._facts[product.group]
        seed = seed_of(self.seed, product.row_id)
        for caption_kind in CAPTION_KINDS:
            caption = product.caption(caption_kind)
            if caption is None:
                continue
            reading = read(caption, self.lexicon)
            found = slots(reading, product, caption_kind, self.lexicon)
            source = Source(product, caption_kind, reading, found, facts, seed)
            self._captions[caption_kind] += 1
            taught = product.row_id in self._teaches
            made = {edit: self._edit(source, edit, taught) for edit in ("swap", *found)}
            yield caption_kind, caption, {edit: made[edit] for edit in EDITS if made.get(edit)}

    @property
    def captions(self) -> int:
        """How many captions it has read so far."""
        return self._captions.total()

    @property
    def tally(self) -> Tally:
        """What became of the drafts so far, per caption kind and edit."""
        counts = {}
        for (kind, edit), found in self._tally.items():
            captions = self._captions[kind]
            without = captions - found["slots"]
            rest = {key: count for key, count in found.items() if key != "slots"}
            counts[kind, edit] = Counter({"captions": captions, **rest})
            counts[kind, edit]["no_slot"] += without
        return counts

    def _edit(self, source: Source, edit: str, taught: bool) -> list[Negative]:
        """The negatives of one edit, in the order drawn."""
        tally, drawn = self._tally[source.caption_kind, edit], set()
        tally["slots"] += 1
        kept: dict[str, Negative] = {}
        for draft in self._drafts(source, edit):
            if isinstance(draft, str):
                tally[draft] += 1
            elif draft.replacement in drawn:
                tally["repeated"] += 1
            else:
                drawn.add(draft.replacement)
                made = self._judge(source, draft, taught)
                if isinstance(made, Negative):
                    kept[made.negative] = made
                tally[made if isinstance(made, str) else "kept"] += 1
        return list(kept.values())

    def _judge(self, source: Source, draft: Draft, taught: bool) -> Negative | str:
        """The finished negative, or which filter refuses the draft."""
        refused = self.judges.refuse(source, draft, taught)
        if refused:
            return refused
        made = finish(source.reading.caption, draft)
        if source.facts.is_caption(made.negative):
            return "is_a_caption"
        return made if draft.balanced else "balance"

    def _drafts(self, source: Source, edit: str) -> Iterable[Draft | str]:
        if edit == "swap":
            return relation.drafts(source)
        draw = objects.drafts if edit == "article" else attribute.drafts
        drawn = draw(source, self.vocabulary, edit, self.candidates)
        if self.judges.masked is None:
            return drawn
        return itertools.chain(drawn, self.judges.masked.drafts(source, edit, self.lexicon, self.candidates))


def lexicon_of(products: Iterable[Product]) -> Lexicon:
    """The fixed lists with the products' own attribute values."""
    values = {(kind, value) for product in products for kind in COLUMN if (value := product.value(kind)) is not None}
    return seed_lexicon().extended(values)


def group_facts(products: Iterable[Product], lexicon: Lexicon) -> dict[int, Facts]:
    """The facts of every group."""
    groups: dict[int, list[Product]] = {}
    for product in products:
        groups.setdefault(product.group, []).append(product)
    return {group: Facts.of(members, lexicon) for group, members in groups.items()}


def interleave(lists: Sequence[list[Negative]], limit: int) -> list[Negative]:
    """Up to `limit` negatives, one of each list in turn, so that every edit of a type is heard."""
    filled = [found for found in lists if found]
    if len(filled) == 1:
        return filled[0][:limit]
    return [found[turn] for turn in range(limit) for found in filled if turn < len(found)][:limit]
