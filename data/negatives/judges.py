"""What decides about a draft besides the facts of its group: same meaning, grammar and plausibility."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from data.negatives.edits import Draft, Source
from data.negatives.filters import grammar
from data.negatives.lexicon import Mention, Term
from data.negatives.masked import MaskedFills
from data.negatives.plausibility import Trigrams
from data.negatives.synonyms import SameMeaning, SmallThesaurus
from data.text import tokens


@dataclass(frozen=True)
class Judges:
    """The filters in their order; `trigrams` None asks nobody about plausibility, `masked` None proposes no fills."""

    meaning: SameMeaning = field(default_factory=lambda: SameMeaning(SmallThesaurus()))
    trigrams: Trigrams | None = None
    limit: float = 2.0  # nats a word
    masked: MaskedFills | None = None
    _last: list[Any] = field(default_factory=lambda: [None, (), (), 0.0], repr=False)

    def refuse(self, source: Source, draft: Draft, taught: bool) -> str | None:
        """Which filter refuses the draft, or None. `taught`: whether the trigram model has read the caption."""
        if draft.term is None or draft.slot is None:
            return "implausible" if abs(self._swap_gain(source, draft, taught)) > self.limit else None
        slot, term, facts = draft.slot, draft.term, source.facts
        same = self.meaning.reason(slot.term, term)
        if same:
            return same
        if facts.names(term):
            return "named_in_group"
        if not grammar(source.reading, slot, term):
            return "grammar"
        if self.trigrams and abs(self.gain(source, slot, term, taught)) > self.limit:
            return "implausible"
        return "true_of_group" if facts.is_true(term) else None

    def gain(self, source: Source, slot: Mention, term: Term, taught: bool) -> float:
        """By how many nats a word `term` is likelier in its place than the caption's own word. 0 without a model."""
        if self.trigrams is None:
            return 0.0
        key = source.reading.caption, slot.first, taught
        if key != self._last[0]:  # the drafts of one slot come one after another
            texts = tuple(word.text for word in source.reading.words)
            before, own, after = texts[: slot.first], texts[slot.first : slot.last + 1], texts[slot.last + 1 :]
            score = self.trigrams.score_of_taught if taught else self.trigrams.score
            self._last[:] = key, before, after, score(before, own, after)
        return self.trigrams.score(self._last[1], term.key, self._last[2]) - self._last[3]

    def _swap_gain(self, source: Source, draft: Draft, taught: bool) -> float:
        """The same of a swap: its total gain over the words next to the four ends of the spans, two at each."""
        if self.trigrams is None:
            return 0.0
        words = source.reading.words
        before = tuple(word.text for word in words if word.end <= draft.start)
        own = tuple(word.text for word in words if draft.start <= word.start < draft.end)
        after = tuple(word.text for word in words if word.start >= draft.end)
        score = self.trigrams.score_of_taught if taught else self.trigrams.score
        new = tuple(token.text for token in tokens(draft.replacement))
        length = len(own) + min(len(after), 1) + 1
        return (self.trigrams.score(before, new, after) - score(before, own, after)) * length / _SWAPPED


_SWAPPED = 8
