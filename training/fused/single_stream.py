"""SIMLA's one stack in its three uses: a BERT whose layers also have cross-attention, switched on or off per pass.

Khan et al. 2022, arXiv 2203.14395, §2 and appendix 1.2; authors' code C. `parts` holds the modules of the student or of
the teacher by name: `image` and `text` (towers), `fusion` (the cross-attentions). R captions, L tokens, N patches,
width D, h heads. Captions are taken in buckets by length, each cut to its own longest: padding costs nothing. They come
as word embeddings, looked up once in a step: the gradient of each look-up is as large as the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.fused.fusion import places, put
from training.task import BUCKETS
from training.towers import padding_bias

Parts = Mapping[str, Any]


def read_text(parts: Parts, words: Tensor, mask: Tensor) -> Tensor:
    """E_l(T)_0, the caption's feature (R, D): cross-attention off, no picture has a part in it."""
    trunk, made = parts["text"].trunk, []
    order, widths = buckets(mask)
    for rows, width in zip(order.chunk(BUCKETS), widths, strict=True):
        made.append(trunk.encode(words[:, :width].index_select(0, rows), mask[rows, :width]))
    return torch.cat(made).index_select(0, order.argsort())


def read_words(
    parts: Parts,
    words: Tensor,
    mask: Tensor,
    projected: Sequence[Tensor],
    rows: Tensor | None = None,
    wanted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """E_mm(T | I): words go in at the first layer again, every layer reads the picture.

    Args:
        words, mask: (R, L, D) and (R, L). Taken in `BUCKETS` by length, each cut to its own longest.
        projected: per layer the keys and values of pictures; `rows` (R,) says which of them each caption reads.
        wanted: (R, L) bool, the words whose features are asked for besides [CLS]; the last layer computes no others.

    Returns tokens (R, L, D), 0 where they are not wanted, and the [CLS] rows of the last layer's self-attention
    probabilities (R, h, L).
    """
    trunk, fusion, length = parts["text"].trunk, parts["fusion"], mask.shape[1]
    order, widths = buckets(mask)
    at = places(torch.ones_like(mask) if wanted is None else wanted)
    tokens, attention = [], []
    for chunk, width in zip(order.chunk(BUCKETS), widths, strict=True):
        x = trunk.embed(words[:, :width].index_select(0, chunk))
        bias = padding_bias(mask[chunk, :width], x.dtype)
        pictures = chunk if rows is None else rows[chunk]
        here = at[chunk, :width]
        fused = fusion(trunk.layers, x, bias, [pair.index_select(0, pictures) for pair in projected], at=here)
        tokens.append(put(fused.tokens, here, length))
        attention.append(F.pad(fused.probabilities[:, :, 0].float(), (0, length - width)))
    back = order.argsort()
    return torch.cat(tokens).index_select(0, back), torch.cat(attention).index_select(0, back)


def read_patches(parts: Parts, v: Tensor, words: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
    """E_mm(I | T): patches (B, N+1, D) through the BERT's embedding and layers; keys and values are the words as they
    enter the first layer, without context [P app 1.2, C pretrain.py]. 0 for those not set in `wanted` (B, N+1)."""
    trunk, fusion = parts["text"].trunk, parts["fusion"]
    at = places(torch.ones_like(v[..., 0], dtype=torch.uint8) if wanted is None else wanted)
    x = trunk.embed(v)
    nothing = x.new_zeros(1, 1, 1, 1)
    bias = padding_bias(mask, x.dtype)
    projected = fusion.project(trunk.embed(words))
    return put(fusion(trunk.layers, x, nothing, projected, bias, at).tokens, at, v.shape[1])


def buckets(mask: Tensor) -> tuple[Tensor, list[int]]:
    """Order of captions by length, and the longest of each of the `BUCKETS` that it is cut into."""
    lengths = mask.sum(1)
    order = lengths.argsort(stable=True)
    return order, [int(lengths[chunk[-1]]) for chunk in order.chunk(BUCKETS)]
