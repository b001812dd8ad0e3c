"""Fills by a masked language model, an optional source: what it would write in a slot, if the lexicon knows the word.

A model says what is usual there, not what is false of the picture; so a fill is drafted only if it is a term of the
slot's own kind and form that excludes the word in the caption, and then passes the same filters as any other draft.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.negatives.edits import Draft, Source, replace
from data.negatives.lexicon import Lexicon, Mention, Term
from data.negatives.ontology import Kind, compatible
from data.params import UserError

_CURE = "Correct negatives.masked_lm, or set it to null."


class MaskedFills:
    """A transformers masked language model and its tokenizer, from a local folder; runs on the processor.

    Args:
        folder: as `save_pretrained` writes it. Nothing is downloaded, and weights must be safetensors.
        top: how many of the likeliest words to look at.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: Path, top: int = 50) -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{folder}: no masked language model with a tokenizer ({why}). {_CURE}") from None
        if self._tokenizer.mask_token_id is None:
            raise UserError(f"{folder}: the tokenizer has no mask token. {_CURE}")
        self._model: Any = model.eval()
        self._top = top

    def drafts(self, source: Source, kind: Kind, lexicon: Lexicon, tries: int) -> Iterator[Draft]:
        """Up to `tries` drafts, likeliest first; none where the model offers no word that excludes the caption's."""
        slot = source.slots.get(kind)
        if slot is None:
            return
        found = (term for word in self.words(source.reading.caption, slot) if (term := _term(lexicon, kind, word)))
        fitting = [t for t in found if t.form == slot.term.form and not compatible(kind, t.values, slot.term.values)]
        for term in fitting[:tries]:
            yield replace(source, slot, term, True)

    def words(self, caption: str, slot: Mention) -> tuple[str, ...]:
        """The likeliest single words in the place of `slot`, likeliest first."""
        masked = f"{caption[: slot.start]}{self._tokenizer.mask_token}{caption[slot.end :]}"
        return self._fill(masked)

    @functools.lru_cache(maxsize=1 << 14)  # noqa: B019 - one object per run; derived captions repeat
    def _fill(self, masked: str) -> tuple[str, ...]:
        import torch

        tokens = self._tokenizer(masked, return_tensors="pt", truncation=True)
        places = (tokens["input_ids"][0] == self._tokenizer.mask_token_id).nonzero()
        if not len(places):
            return ()
        with torch.inference_mode():
            scores = self._model(**tokens).logits[0, places[0, 0]]
        ids = scores.topk(min(self._top, len(scores))).indices.tolist()
        return tuple(self._tokenizer.decode([number]).strip() for number in ids)


def _term(lexicon: Lexicon, kind: Kind, word: str) -> Term | None:
    """The term of this kind that the whole of `word` spells."""
    mentions = lexicon.find(word)
    whole = len(mentions) == 1 and (mentions[0].start, mentions[0].end) == (0, len(word))
    return mentions[0].term if whole and mentions[0].term.kind == kind else None
