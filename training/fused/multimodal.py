"""Transformer layers that read another modality, and on top of them image-text matching and masked image modelling.

Sequence x (B, L, W), the other modality's (B, M, S); N patches, of which K per picture are masked. Rows are gathered by
`index_select`: the gradient of `x[rows]` is written entry by entry on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.distributed import Outputs
from training.fused.fusion import Fusion, attend_at, initialise, places, put
from training.fused.grouping import Negatives
from training.towers import BertLayer, BertTrunk, padding_bias

MimTarget = Literal["feature", "pixel", "dvae"]
BUCKETS = 3  # length groups of a pass over texts, each padded to its own longest only


class Multimodal(nn.Module):
    """Layers of self-attention, cross-attention and feed-forward. `layers` may come pretrained; crosses start anew."""

    def __init__(self, layers: Sequence[BertLayer], source_width: int, eps: float) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)
        self.fusion = Fusion(len(layers), layers[0].out.in_features, layers[0].heads, source_width, eps)

    def project(self, source: Tensor) -> list[Tensor]:
        """Every layer's keys and values of the other modality (B, M, S); rows can be gathered and reused."""
        return self.fusion.project(source)

    def forward(
        self, x: Tensor, bias: Tensor | float, projected: Sequence[Tensor], source_bias: Tensor | None = None,
        at: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Features (B, L, W), and of every layer the cross-attention logits (B, heads, L, M) before any bias.

        `at` (B, K): the places that are wanted, K in place of L; the last layer computes no others.
        """
        found = []
        crosses: Any = self.fusion.crosses
        for layer, cross, pair in zip(self.layers, crosses, projected, strict=True):
            last = layer is self.layers[-1]
            x = (layer.attend(x, bias) if at is None or not last else attend_at(layer, x, bias, at))[0]
            x, logits = cross.attend(x, pair, source_bias)
            x = layer.feed(x)
            found.append(logits)
        return x, found


def in_buckets(mask: Tensor, run: Callable[[Tensor, int], Tensor]) -> Tensor:
    """What `run` makes of texts with `mask` (B, L), taken in groups of like length: (B, L, ...), the rest zeros.

    `run(rows, width)` gets row numbers (R,) and the length of their longest text, and gives (R, width, ...).
    """
    lengths = mask.sum(1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.chunk(BUCKETS):
        made = run(rows, int(lengths[rows].max()))
        parts.append(F.pad(made, (0, 0) * (made.ndim - 2) + (0, mask.shape[1] - made.shape[1])))
    return torch.cat(parts).index_select(0, order.argsort())


def read_texts(text: BertTrunk, words: Tensor, mask: Tensor) -> Tensor:
    """E_t's token features (B, L, W) of word embeddings, zeros past the longest text of each length group.

    Words are looked up once for all groups and passes: the gradient of each look-up is as large as the vocabulary.
    """
    return in_buckets(
        mask, lambda rows, width: text.contextual(words[:, :width].index_select(0, rows), mask[rows, :width])
    )  # fmt: skip


def word_logits(
    text: BertTrunk, fusion: Multimodal, head: nn.Module, v: Tensor, words: Tensor, mask: Tensor, chosen: Tensor
) -> Tensor:  # fmt: skip
    """Logits float32 (M, V) of the `chosen` (B, L) positions of E_f(E_t(words), v): the head runs nowhere else."""
    at = places(chosen)

    def fuse(rows: Tensor, width: int) -> Tensor:
        w = text.contextual(words[:, :width].index_select(0, rows), mask[rows, :width])
        here, pairs = at[rows, :width], fusion.project(v.index_select(0, rows))
        return put(fusion(w, padding_bias(mask[rows, :width], w.dtype), pairs, at=here)[0], here, width)

    logits: Tensor = head(in_buckets(mask, fuse)[chosen], text.words.weight)
    return logits.float()


def match_loss(
    fusion: Multimodal, head: nn.Module, outputs: Outputs, texts: Negatives, images: Negatives
) -> dict[str, Tensor]:  # fmt: skip
    """Image-text matching: mean CE over (T, I), (T, I_neg) and (T_neg, I) of this rank's rows, and its accuracies.

    Args:
        head: fused [CLS] (R, W) to logits of (no match, match).
        outputs: of all B rows, `words` (B, L, W) with `mask` (B, L), `patches` (B, N + 1, S), `image` (B, d).
        texts, images: which text is negative to each image, and which image to each text.
    """
    rows = distributed.shard(len(outputs["mask"]))
    own = torch.arange(rows.start, rows.stop, device=outputs["mask"].device)
    text_of = torch.cat([own, own, texts.index[own]])
    image_of = torch.cat([own, images.index[own], own])
    counts = torch.cat([torch.ones_like(texts.valid[own]), images.valid[own], texts.valid[own]])
    labels = (torch.arange(3 * len(own), device=own.device) < len(own)).long()
    mask, projected = outputs["mask"][text_of], fusion.project(outputs["patches"])

    def fuse(chosen: Tensor, width: int) -> Tensor:
        """[CLS] of the fused pairs (R, 1, W); an image's keys and values were made once for all its pairs."""
        words = outputs["words"][:, :width].index_select(0, text_of[chosen])
        pairs = [pair.index_select(0, image_of[chosen]) for pair in projected]
        return fusion(
            words, padding_bias(mask[chosen, :width], words.dtype), pairs, at=chosen.new_zeros(len(chosen), 1)
        )[0]

    logits = head(in_buckets(mask, fuse)[:, 0]).float()
    loss = F.cross_entropy(logits, labels, reduction="none") * counts
    right, negative = (logits.argmax(1) == labels) & counts, slice(len(own), None)
    return {
        "itm": distributed.mean(loss.sum(), counts.sum()),
        "itm_positive": right[: len(own)].float().mean(),
        "itm_negative": distributed.mean(right[negative].sum().float(), counts[negative].sum()),
        "negatives_fallback": torch.stack([texts.fallback, images.fallback]).float().mean(),
    }


class MimDecoder(nn.Module):
    """Image tokens that read the unmasked text, and a linear head at the masked patches.

    Without it masked image modelling would never see the text: in the fused layers only text asks.
    """

    def __init__(self, layers: Sequence[BertLayer], text_width: int, eps: float, outputs: int) -> None:
        super().__init__()
        self.blocks = Multimodal(layers, text_width, eps)
        self.out = nn.Linear(layers[0].out.in_features, outputs)
        self.apply(initialise)

    def forward(self, tokens: Tensor, words: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
        """Image tokens (B, N + 1, W), text features (B, L, S) with mask, chosen (B, N) with K each: (B K, outputs)."""
        wanted = F.pad(chosen, (1, 0))
        at = places(wanted)
        found, _ = self.blocks(tokens, 0.0, self.blocks.project(words), padding_bias(mask, words.dtype), at)
        return self.out(put(found, at, tokens.shape[1])[wanted])


def mim_outputs(kind: MimTarget, width: int, patch: int, codes: int) -> int:
    """How many numbers describe the target of one patch."""
    return {"feature": width, "pixel": 3 * patch * patch, "dvae": codes}[kind]


def normalised_features(patches: Tensor) -> Tensor:
    """Teacher features (B, N, W) as targets: each patch's with mean 0 and deviation 1."""
    return F.layer_norm(patches.float(), patches.shape[-1:])


def normalised_pixels(pixels: Tensor, patch: int) -> Tensor:
    """uint8 (B, 3, H, W) to (B, N, 3 patch²), each patch with mean 0 and deviation 1 (MAE, arXiv 2111.06377)."""
    cut = F.unfold(pixels.float(), patch, stride=patch).transpose(1, 2)
    return (cut - cut.mean(-1, keepdim=True)) / (cut.var(-1, keepdim=True) + 1e-6).sqrt()


def mim_loss(kind: MimTarget, predicted: Tensor, target: Tensor) -> Tensor:
    """(M,) loss of M masked patches: smooth L1 with β = 1, squared error, or cross-entropy of codes (M,) int64."""
    if kind == "dvae":
        return F.cross_entropy(predicted.float(), target, reduction="none")
    error = F.smooth_l1_loss if kind == "feature" else F.mse_loss
    return error(predicted.float(), target, reduction="none").mean(-1)
