"""SIMLA's one stack in its three uses: a BERT whose layers also have cross-attention, switched on or off per pass.

Khan et al. 2022, arXiv 2203.14395, §2 and appendix 1.2; authors' code C. `parts` holds the modules of the student or of
the teacher by name: `image` and `text` (towers), `fusion` (the cross-attentions). R captions, L tokens, N patches,
width D, h heads. Captions are taken in buckets by length, each cut to its own longest: padding costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.task import BUCKETS, Tokens
from training.towers import padding_bias

Parts = Mapping[str, Any]


def read_text(parts: Parts, caption: Tokens) -> Tensor:
    """E_l(T)_0, the caption's feature (R, D): cross-attention off, no picture has a part in it."""
    trunk, made = parts["text"].trunk, []
    order, widths = buckets(caption.mask)
    for rows, width in zip(order.chunk(BUCKETS), widths, strict=True):
        made.append(trunk(caption.ids[rows, :width], caption.mask[rows, :width]))
    return torch.cat(made)[order.argsort()]


def read_words(
    parts: Parts, ids: Tensor, mask: Tensor, projected: Sequence[Tensor], rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E_mm(T | I): word ids go in at the first layer again, every layer reads the picture.

    Args:
        ids, mask: (R, L). Taken in `BUCKETS` by length, each cut to its own longest.
        projected: per layer the keys and values of pictures; `rows` (R,) says which of them each caption reads.

    Returns tokens (R, L, D), 0 beyond the bucket's width, and the [CLS] rows of the last layer's self-attention
    probabilities (R, h, L).
    """
    trunk, fusion, length = parts["text"].trunk, parts["fusion"], ids.shape[1]
    order, widths = buckets(mask)
    tokens, attention = [], []
    for chunk, width in zip(order.chunk(BUCKETS), widths, strict=True):
        x = trunk.embed(trunk.look_up(ids[chunk, :width]))
        bias = padding_bias(mask[chunk, :width], x.dtype)
        pictures = chunk if rows is None else rows[chunk]
        fused = fusion(trunk.layers, x, bias, [pair[pictures] for pair in projected])
        tokens.append(F.pad(fused.tokens, (0, 0, 0, length - width)))
        attention.append(F.pad(fused.probabilities[:, :, 0].float(), (0, length - width)))
    back = order.argsort()
    return torch.cat(tokens)[back], torch.cat(attention)[back]


def read_patches(parts: Parts, v: Tensor, caption: Tokens) -> Tensor:
    """E_mm(I | T): patches (B, N+1, D) through the BERT's embedding and layers; keys and values are the words as they
    enter the first layer, without context [P app 1.2, C pretrain.py]."""
    trunk, fusion = parts["text"].trunk, parts["fusion"]
    words = trunk.embed(trunk.look_up(caption.ids))
    x = trunk.embed(v)
    nothing = x.new_zeros(1, 1, 1, 1)
    return fusion(trunk.layers, x, nothing, fusion.project(words), padding_bias(caption.mask, x.dtype)).tokens


def buckets(mask: Tensor) -> tuple[Tensor, list[int]]:
    """Order of captions by length, and the longest of each of the `BUCKETS` that it is cut into."""
    lengths = mask.sum(1)
    order = lengths.argsort(stable=True)
    return order, [int(lengths[chunk[-1]]) for chunk in order.chunk(BUCKETS)]
