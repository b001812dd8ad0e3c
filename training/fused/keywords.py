"""Pseudo-labelled keywords: which words of a caption the fused [CLS] looks at, by vote of the attention heads.

SIMLA, section 2.4 and the authors' code. B captions, h heads, L positions, V words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from data.params import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Drop = Literal["cls", "specials", "stop_words"]
SPECIALS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
# Words that say nothing about a picture; a keyword should.
STOP_WORDS = (
    "a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "this", "to", "with", ",", ".",
    "'", "-", "/", "&", "(", ")",
)  # fmt: skip
NOTHING = -1  # stands for a keyword that a caption does not have


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Ids of [CLS] and [MASK]. Raises `UserError` where the tokenizer is not a BERT's."""
    found: Any = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[MASK]")
    if None in found:
        raise UserError("methods.simla.towers.text: its tokenizer has no [CLS] or no [MASK]; use one of a BERT.")
    return found


def dropped_ids(tokenizer: Tokenizer, drop: Drop) -> Tensor:
    """Ids of the words that are no keywords, int64."""
    words = {"cls": SPECIALS[:1], "specials": SPECIALS, "stop_words": SPECIALS + STOP_WORDS}[drop]
    found = [tokenizer.token_to_id(word) for word in words]
    return torch.tensor([i for i in found if i is not None])


def vote(attention: Tensor, mask: Tensor, votes: int, keep: int) -> Tensor:
    """Positions int64 (B, keep) of the most voted tokens, `NOTHING` where there are fewer.

    Every head votes for its `votes` largest positions, padding left out before. A position without a vote is no
    keyword; of equally many votes the earlier position wins.

    Args:
        attention: the [CLS] rows of the last layer's self-attention (B, h, L).
        mask: int64 (B, L), 1 for tokens.
    """
    length = attention.shape[-1]
    seen = attention.masked_fill(mask[:, None] == 0, -1)
    chosen = seen.topk(min(votes, length), -1).indices
    counts = F.one_hot(chosen, length).sum((1, 2))
    counts = counts * mask  # of captions with fewer tokens than votes
    order = counts.argsort(dim=1, descending=True, stable=True)[:, :keep]
    positions = torch.where(counts.gather(1, order) > 0, order, NOTHING)
    return F.pad(positions, (0, keep - positions.shape[1]), value=NOTHING)


def words_at(ids: Tensor, positions: Tensor) -> Tensor:
    """Token ids (B, keep) at `positions`, `NOTHING` where there is none."""
    found = ids.gather(1, positions.clamp_min(0))
    return torch.where(positions >= 0, found, NOTHING)


def multi_hot(words: Tensor, vocabulary: int, dropped: Tensor) -> Tensor:
    """Targets y float32 (B, V): 1 at the keywords (B, keep), 0 at the ids in `dropped`, which are no keywords."""
    made = torch.zeros(len(words), vocabulary + 1, device=words.device)
    made.scatter_(1, torch.where(words >= 0, words, vocabulary), 1.0)  # the spare column takes what is missing
    made[:, dropped.to(words.device)] = 0
    return made[:, :-1]


def concepts(z: Tensor, y: Tensor, y_soft: Tensor, alpha: float) -> Tensor:
    """(1-α) BCE(z, y) + α BCE(z, y') of each sample and word (B, V) [P §2.4 eq. 8-9]."""
    return F.binary_cross_entropy_with_logits(z, (1 - alpha) * y + alpha * y_soft, reduction="none")
