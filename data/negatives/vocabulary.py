"""Replacement words with the frequencies of the training captions, drawn so that a blind reader cannot tell.

A pool holds the terms that fill one slot of a catalog's training captions in one context (the colours of titles of
Tshirts; the plural article words of men's casual products in topwear), weighted by how often they do. Let π be the
pool's distribution and A(v) the terms that are certainly false where v is true. A draw proposes w from π restricted to
A(v) and accepts it with probability

    min(1, π(A(v)) / π(A(w)))                                    (Metropolis-Hastings)

Then π(v) · P(v → w) = π(w) · P(w → v): as many "Men" become "Women" as "Women" become "Men", every word is as frequent
among negatives as among captions, and no text-only model gains by knowing which words are rare. The price is that
frequent values ("Casual") are edited less often.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from data.negatives.captions import CAPTION_KINDS, CaptionKind, Product, Reading, read, slots
from data.negatives.lexicon import Lexicon, Term
from data.negatives.ontology import METAL, METAL_PARTS, compatible

ENOUGH = 30  # mentions that make a context's frequencies trustworthy; below it the next wider context is used
Context = tuple[str | None, ...]
Level = Literal["sub_category", "master_category", "all"]
LEVELS: tuple[Level, ...] = ("sub_category", "master_category", "all")
Use = tuple[CaptionKind, Term, Product]


class Choice:
    """What may replace one term v of a pool: the terms A(v), and how to draw one of them."""

    __slots__ = ("_acceptances", "_cumulative", "_pool", "share", "terms")

    def __init__(self, pool: Pool, terms: tuple[Term, ...]) -> None:
        self.terms = terms
        self._pool = pool
        self._cumulative = list(itertools.accumulate(pool.weights[term] for term in terms))
        self._acceptances: list[float | None] = [None] * len(terms)
        self.share = self._cumulative[-1] / pool.total  # π(A(v))

    def draw(self, uniform: float) -> tuple[Term, float]:
        """The term w at `uniform` in [0, 1), and the probability of accepting it."""
        place = bisect.bisect_right(self._cumulative, uniform * self._cumulative[-1])
        acceptance = self._acceptances[place]
        if acceptance is None:
            back = self._pool.choice(self.terms[place])
            acceptance = self._acceptances[place] = min(1.0, self.share / back.share) if back else 0.0
        return self.terms[place], acceptance


class Pool:
    """Terms of one slot in one context with their frequencies; see the module text."""

    def __init__(self, weights: Mapping[Term, int], closed: Callable[[Term, Term], bool]) -> None:
        self.weights = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0].text)))
        self.total = sum(self.weights.values())
        self._closed = closed
        self._choices: dict[Term, Choice | None] = {}

    def choice(self, term: Term) -> Choice | None:
        """What may replace `term`, or None where nothing may."""
        if term not in self._choices:
            allowed = tuple(t for t in self.weights if t.form == term.form and not self._closed(t, term))
            self._choices[term] = Choice(self, allowed) if allowed else None
        return self._choices[term]


class Vocabulary:
    """The pools of all slots, counted over training captions only."""

    def __init__(self, products: Iterable[Product], lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._counts: dict[Context, Counter[Term]] = defaultdict(Counter)
        self._totals: Counter[Context] = Counter()
        self._beside: dict[Term, set[str]] = defaultdict(set)
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._asked: dict[tuple[object, ...], Pool] = {}
        uses: list[tuple[CaptionKind, Term, Product]] = []
        for product in products:
            for caption_kind in CAPTION_KINDS:
                if caption := product.caption(caption_kind):
                    uses += self._count(product, caption_kind, read(caption, lexicon))
        self._home = _homes(uses)
        for caption_kind, term, product in uses:
            for level in LEVELS:
                for context in self._article_contexts(product, caption_kind, term, level):
                    self._counts[context][term] += 1
                    self._totals[context] += 1

    def attribute_pool(self, product: Product, caption_kind: CaptionKind, term: Term) -> Pool:
        """The pool of a colour, wearer or usage: what products of the same article type are described by.

        Colours of rare article types come from their sub category's pool, or a wider one still.
        """
        places = (product.catalog, product.article, product.sub_category, product.master_category)
        asked = (caption_kind, term.kind, term.form, *places)
        pool = self._asked.get(asked)
        if pool is None:
            context = self._widened(_attribute_contexts(product, caption_kind, term))
            metal = term.kind == "colour" and product.article in METAL_PARTS
            pool = self._asked[asked] = self._pool((*context, metal), lambda: self._counts.get(context, {}), metal)
        return pool

    def article_pool(
        self, product: Product, caption_kind: CaptionKind, term: Term, level: Level, beside: str | None
    ) -> Pool:
        """The pool of article words for products of the same wearer, usage and colour, at one `level` around the word.

        Where such products are few, their colour does not count, then their usage. In titles only words that training
        titles use together with the word `beside` the slot: a "Dial T-shirt" would give itself away.
        """
        asked = (caption_kind, term, level, product.catalog, product.gender, product.colour, product.usage, beside)
        pool = self._asked.get(asked)
        if pool is None:
            context = self._widened(self._article_contexts(product, caption_kind, term, level))
            pool = self._asked[asked] = self._pool((*context, beside), lambda: self._fitting(context, beside), False)
        return pool

    def _widened(self, contexts: Iterable[Context]) -> Context:
        """The first context with enough mentions, or the last."""
        context: Context = ()
        for context in contexts:
            if self._totals[context] >= ENOUGH:
                break
        return context

    def _fitting(self, context: Context, beside: str | None) -> dict[Term, int]:
        counts = self._counts.get(context, Counter())
        return {term: count for term, count in counts.items() if not beside or beside in self._beside[term]}

    def _pool(self, key: tuple[object, ...], weights: Callable[[], Mapping[Term, int]], metal: bool) -> Pool:
        """One pool per context, shared by all products that ask for it."""
        if key not in self._pools:
            self._pools[key] = Pool(weights(), _closed_with_metal if metal else _closed)
        return self._pools[key]

    def _count(self, product: Product, caption_kind: CaptionKind, reading: Reading) -> list[Use]:
        uses: list[Use] = []
        for kind, slot in slots(reading, product, caption_kind, self._lexicon).items():
            if kind == "article":
                if caption_kind == "title":
                    self._beside[slot.term].update(word.text for word in reading.words)
                uses.append((caption_kind, slot.term, product))
                continue
            for context in _attribute_contexts(product, caption_kind, slot.term):
                self._counts[context][slot.term] += 1
                self._totals[context] += 1
        return uses

    def _article_contexts(
        self, product: Product, caption_kind: CaptionKind, term: Term, level: Level
    ) -> Iterator[Context]:
        """From the narrowest context to the widest."""
        sub, master = self._home.get((product.catalog, term), (None, None))
        place = {"sub_category": sub, "master_category": master, "all": None}[level]
        for usage, colour in ((product.usage, product.colour), (product.usage, "any"), ("any", "any")):
            yield (product.catalog, caption_kind, "article", term.form, level, place, product.gender, usage, colour)


def _homes(uses: Iterable[Use]) -> dict[tuple[str, Term], tuple[str | None, str | None]]:
    """Where a catalog's article word belongs: the sub and master category it is most often used for in training."""
    counts: dict[tuple[str, Term], Counter[tuple[str | None, str | None]]] = defaultdict(Counter)
    for _, term, product in uses:
        counts[product.catalog, term][product.sub_category, product.master_category] += 1
    return {key: min(found.items(), key=lambda item: (-item[1], str(item[0])))[0] for key, found in counts.items()}


def _attribute_contexts(product: Product, caption_kind: CaptionKind, term: Term) -> Iterator[Context]:
    """From the narrowest context of a slot to the widest: a colour is at home in the whole department, but who wears a
    thing, and when, is known only of its own article type (no saree for men)."""
    for level in _HOMES.get(term.kind, ("article",)):
        yield (product.catalog, caption_kind, term.kind, term.form, level, getattr(product, level))


_HOMES = {
    "colour": ("article", "sub_category", "master_category"), "material": ("article", "sub_category"),
    "pattern": ("article", "sub_category"), "part": ("article", "sub_category"),
}  # fmt: skip


@functools.cache
def _closed(one: Term, other: Term) -> bool:
    """Whether both terms could be true of one product, so that neither may replace the other."""
    return compatible(one.kind, one.values, other.values)


def _closed_with_metal(one: Term, other: Term) -> bool:
    return _closed(one, other) or not METAL.isdisjoint(one.values | other.values)
