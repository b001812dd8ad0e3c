"""Where image and text co-occur: scores of patches and of words from the teacher's cross-attention, and masks by them.

SyncMask (Song et al. 2024, arXiv 2404.01156) draws both masks from one teacher pass. Its formulas are not known here:
the scores below are choices, each under its name ("SyncMask-style"). Symbols, per sample:
    Z (h, L, N + 1)   cross-attention logits, text queries over [CLS] and N patches;  C  content tokens of L
    P = softmax over patches of Z[C, 1:]   where does word t look;   P̄ (L, N) its mean over heads
    R = softmax over words C of Z[C, 1:]   which word claims patch n;   R̄ (L, N) its mean over heads
    a_v (N), a_w (L)   scores of patches and of tokens;  M_v, M_w  what is masked;  r_v, r_w  the shares masked
Summing P over patches would give every word the score 1, and the text mask would be random without anyone noticing:
hence R. The image's [CLS] column attracts attention from everywhere and is left out before the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.params import UserError
from training.fused.masking import gumbel_top_k
from training.losses import MASKED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Score = Literal["bisoftmax", "cls", "overlap", "weighted", "feature", "random"]
LEAST = 1e-30  # a place that may be masked never has the score 0, so that the number of masked places is exact


class Vocabulary(nn.Module):
    """What masking must know of a WordPiece vocabulary of V pieces: flags bool (V,), and the id of [MASK].

    Attributes:
        special: tokens that are never masked: [CLS], [SEP], [PAD], and stop words where some are named.
        continues: pieces that continue a word ("##leather").
    """

    special: Tensor
    continues: Tensor

    def __init__(self, tokenizer: Tokenizer, skip: Sequence[str] = ()) -> None:
        """Of `tokenizer`, with the words `skip` as never masked. Raises `UserError` where it has no [MASK]."""
        super().__init__()
        entries = tokenizer.get_vocab()
        if "[MASK]" not in entries:
            raise UserError("methods.syncmask.towers.text: its tokenizer has no [MASK]; use one of a BERT.")
        self.mask_id, self.size = entries["[MASK]"], max(entries.values()) + 1
        special, continues = torch.zeros(self.size, dtype=torch.bool), torch.zeros(self.size, dtype=torch.bool)
        special[[entries[word] for word in ("[CLS]", "[SEP]", "[PAD]", *skip) if word in entries]] = True
        continues[[i for word, i in entries.items() if word.startswith("##")]] = True
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("continues", continues, persistent=False)

    def content(self, ids: Tensor, mask: Tensor) -> Tensor:
        """C: bool (B, L), tokens that may be masked."""
        return mask.bool() & ~self.special[ids]

    def words(self, ids: Tensor, content: Tensor) -> Tensor:
        """Which word a content token belongs to, int64 (B, L) counting from 0; means nothing elsewhere."""
        starts = content & ~self.continues[ids]
        return (starts.cumsum(1) - 1).clamp_min(0)


@dataclass(frozen=True)
class Maps:
    """P̄ and R̄, float32 (B, L, N), and C (B, L). Rows of R̄ outside C are 0."""

    looks: Tensor
    claims: Tensor
    content: Tensor


def attention_maps(logits: Tensor, content: Tensor) -> Maps:
    """P̄ and R̄ of cross-attention logits (B, h, L, N + 1); probabilities are averaged over heads, not logits.

    Several layers are averaged alike: give their logits side by side along the heads.
    """
    z = logits[..., 1:].float()
    claims = z.masked_fill(~content[:, None, :, None], MASKED).softmax(2).mean(1) * content[:, :, None]
    return Maps(z.softmax(3).mean(1), claims, content)


def feature_logits(tokens: Tensor, patches: Tensor, tau: float) -> Tensor:
    """Cosines of token features (B, L, d) and [CLS] and patch features (B, N + 1, d) in place of attention logits."""
    cosines = F.normalize(tokens.float(), dim=-1) @ F.normalize(patches.float(), dim=-1).transpose(1, 2)
    return cosines[:, None] / tau


def patch_scores(kind: Score, maps: Maps) -> Tensor:
    """a_v (B, N), summing to 1.

    The mean of P̄ over the content tokens; `cls`, the row of the text's [CLS]; `random`, all alike.
    """
    if kind == "random":
        return torch.full_like(maps.looks[:, 0], 1 / maps.looks.shape[2])
    if kind == "cls":
        return maps.looks[:, 0]
    weights = maps.content.float()
    return torch.einsum("bl,bln->bn", weights, maps.looks) / weights.sum(1, keepdim=True).clamp_min(1)


def word_scores(kind: Score, maps: Maps, a_v: Tensor, chosen: Tensor) -> Tensor:
    """a_w (B, L), 0 outside the content.

    `bisoftmax` and `feature`: Σ_n R̄[t, n] / N. `weighted`: Σ_n a_v[n] R̄[t, n], so that background nobody looks at has
    no vote. `overlap` and `cls`: Σ_{n in M_v} P̄[t, n], with the patches `chosen` (B, N) first. `random`: all alike.
    """
    if kind == "random":
        return maps.content.float() / maps.content.sum(1, keepdim=True).clamp_min(1)
    if kind in ("overlap", "cls"):
        return torch.einsum("bln,bn->bl", maps.looks, chosen.float()) * maps.content
    if kind == "weighted":
        return torch.einsum("bln,bn->bl", maps.claims, a_v)
    return maps.claims.mean(2)


def choose_patches(scores: Tensor, share: float, chance: Tensor, temperature: float) -> Tensor:
    """M_v: bool (B, N), ⌊r_v N⌋ patches of each sample. `chance` is uniform (B, N)."""
    count = int(share * scores.shape[1] + 1e-9)  # 0.29 * 100 must be 29
    counts = torch.full((len(scores),), count, device=scores.device)
    return gumbel_top_k(scores.clamp_min(LEAST), counts, chance, temperature)


def choose_words(
    scores: Tensor, words: Tensor, content: Tensor, share: float, chance: Tensor, temperature: float
) -> Tensor:  # fmt: skip
    """M_w: bool (B, L), all pieces of max(1, round(r_w · words)) words of each sample; none where there is no content.

    A word's score is the largest of its pieces'. `chance` is uniform (B, L), of which word w takes number w.
    """
    pooled = pool_pieces(scores, words, content)
    counts = torch.round(share * (pooled > 0).sum(1)).long().clamp_min(1)
    return gumbel_top_k(pooled, counts, chance, temperature).gather(1, words) & content


def pool_pieces(scores: Tensor, words: Tensor, content: Tensor) -> Tensor:
    """Token scores (B, L) as word scores (B, L): at place w the largest score of word w's pieces, 0 past the last."""
    found = torch.where(content, scores.clamp_min(LEAST), 0.0)
    return torch.zeros_like(found).scatter_reduce(1, words, found, "amax")


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """How masks are drawn; `training.methods.syncmask.SyncMask.Config` says what each setting means."""

    score: Score
    synchronised: Literal["both", "text", "image"]
    patches: float
    words: float
    temperature: float


class Masks(NamedTuple):
    """M_v (B, N) and M_w (B, L), and the entropies (B,) of the scores before anything random is mixed in."""

    patches: Tensor
    words: Tensor
    patch_entropy: Tensor
    word_entropy: Tensor


def draw_masks(
    rule: MaskRule, maps: Maps, words: Tensor, mixed: Tensor, chance_v: Tensor, chance_w: Tensor
) -> Masks:  # fmt: skip
    """Both masks of one map.

    Args:
        words: (B, L), which word a token belongs to. mixed: bool (B,), samples whose scores are all alike.
        chance_v, chance_w: uniform numbers (B, N) and (B, L).
    """
    kind_v: Score = "random" if rule.synchronised == "text" else rule.score
    kind_w: Score = "random" if rule.synchronised == "image" else rule.score
    a_v = patch_scores(kind_v, maps)
    mixed_v = torch.where(mixed[:, None], patch_scores("random", maps), a_v)
    m_v = choose_patches(mixed_v, rule.patches, chance_v, rule.temperature)
    a_w = word_scores(kind_w, maps, a_v, m_v)
    mixed_w = torch.where(mixed[:, None], word_scores("random", maps, a_v, m_v), a_w)
    m_w = choose_words(mixed_w, words, maps.content, rule.words, chance_w, rule.temperature)
    return Masks(m_v, m_w, entropy(a_v), entropy(pool_pieces(a_w, words, maps.content)))


def entropy(scores: Tensor) -> Tensor:
    """Of each row's scores (B, K) as a distribution over its positive ones, 1 is uniform: (B,)."""
    p = scores / scores.sum(1, keepdim=True).clamp_min(LEAST)
    bits = -(p * p.clamp_min(LEAST).log()).sum(1)
    return bits / (scores > 0).sum(1).clamp_min(2).log()
