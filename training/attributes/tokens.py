"""From tower outputs to the two token sequences that a fusion block sees, both d wide, each with its global token.

CLIP projects tokens as it projects its global ones: a text's global token is its end-of-text token, a picture's the
first. Towers whose heads project pooled features only get that projection as a global token put first, and linear
layers for the rest. No token is normalised. Batch axis b, text tokens L, patches P, joint width d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoder import DualEncoder
from training.openclip import ClipImageTrunk, ClipTextTrunk
from training.task import Batch
from training.towers import Head

Levels = Sequence[int] | None  # which feature levels are patch tokens; None where only the global tokens are wanted


@dataclass(frozen=True)
class Sequences:
    """T (b, Lt, d) with its mask and the position `end` (b,) of its global token; I (b, 1 + P, d), global token first.

    `a` and `b`, (b, d): the embeddings of picture and text before normalisation, which no fusion has touched.
    """

    text: Tensor
    valid: Tensor
    end: Tensor
    image: Tensor
    a: Tensor
    b: Tensor


def projections(encoder: DualEncoder, fresh: bool, levels: Levels) -> tuple[nn.Module | None, nn.Module | None]:
    """New layers to width d for the tokens of words and of patches; None where the tower's own projection serves.

    Token features differ in scale by level, so those layers can standardise their input (`Head.fit`).
    """
    text, image, width = encoder.text.trunk, encoder.image.trunk, encoder.config.embed_dim
    if levels is None or (isinstance(text, ClipTextTrunk) and not fresh):
        return None, None
    if isinstance(text, ClipTextTrunk):
        return nn.Linear(text.words.embedding_dim, width), nn.Linear(image.last.normalized_shape[0], width)
    return Head(text.width, 0, width), Head(image.token_width(levels), 0, width)


def sequences(
    encoder: DualEncoder, batch: Batch, words: nn.Module | None, patches: nn.Module | None, levels: Levels
) -> Sequences:
    """The sequences of a batch, from what is in it: pixels and token ids, or features of frozen towers."""
    text, valid, end, b = _text(encoder, batch, words, levels)
    image, a = _image(encoder, batch, patches, levels)
    return Sequences(text, valid, end, image, a, b)


def _text(
    encoder: DualEncoder, batch: Batch, words: nn.Module | None, levels: Levels
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    trunk, caption = encoder.text.trunk, batch["caption"]
    found, features, first = batch.get("text_tokens"), caption.features, torch.zeros_like(caption.mask[:, 0])
    if found is None and (features is None or levels is not None):
        found = trunk.contextual(trunk.look_up(caption.ids), caption.mask)
    pooled = encoder.text.head(trunk.pool(found, caption.mask) if features is None else features)
    if levels is None:
        return pooled[:, None], caption.mask[:, :1] > 0, first, pooled
    tokens = trunk.project(found) if words is None else words(found)
    if isinstance(trunk, ClipTextTrunk):
        return tokens, caption.mask > 0, caption.mask.sum(1) - 1, pooled
    valid = F.pad(caption.mask > 0, (1, 0), value=True)
    return torch.cat([pooled[:, None].to(tokens.dtype), tokens], 1), valid, first, pooled


def _image(encoder: DualEncoder, batch: Batch, patches: nn.Module | None, levels: Levels) -> tuple[Tensor, Tensor]:
    tower, given, found = encoder.image, batch["image"], batch.get("image_tokens")
    live = given.ndim == 4  # pixels, not features
    if levels is None:
        pooled = tower.head(tower.trunk(given) if live else given)
        return pooled[:, None], pooled
    if isinstance(tower.trunk, ClipImageTrunk):
        return _clip_image(tower.trunk, given, patches) if live else (batch["image_tokens"], given)
    if live:
        given, found = tower.trunk.with_tokens(given, levels)
    pooled = tower.head(given)
    tokens = patches(found)  # type: ignore[misc]
    return torch.cat([pooled[:, None].to(tokens.dtype), tokens], 1), pooled


def _clip_image(trunk: ClipImageTrunk, pixels: Tensor, patches: nn.Module | None) -> tuple[Tensor, Tensor]:
    if patches is None:
        tokens = trunk.tokens(pixels)
        return tokens, tokens[:, 0]
    x = trunk.embed(pixels)
    for layer in trunk.layers:
        x = layer(x, None)
    x = trunk.last(x)
    return patches(x), x[:, 0] @ trunk.projection
