"""CMA-CLIP's network behind the towers (Liu et al. 2021, arXiv 2112.03562): sequence- and modality-wise attention.

Legend:
    B, N, d   batch, tokens of both modalities together, joint width;  H heads;  K tasks with C_k classes
    S (B, N, d)         text tokens, then image tokens;  m (B, N) which of them are there
    T', I' (B, d)       the two global tokens after sequence-wise attention
    λ^k (B, 2)          weights of task k on (image, text), summing to 1;  z^k = λ_I^k I' + λ_T^k T'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.towers import Head

Gate = Literal["separate", "shared", "mean", "concat"]
STD = 0.02  # of the truncated normal that new matrices start from
SAMPLE = 50_000  # token features that a projection's scale is fitted to


class Attention(nn.Module):
    """Multi-head self-attention over tokens of both modalities: softmax(Q_h K_h^T / sqrt(d/H) + log m) V_h."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {heads} does not divide the joint width {width}.")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, x: Tensor, valid: Tensor) -> Tensor:
        """queries (B, M, d) over tokens x (B, N, d), of which `valid` (B, N) may be seen, to (B, M, d)."""
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(x).chunk(2, dim=-1))
        # Written out: at these lengths torch's fused kernel is several times slower in its bf16 backward on CPUs.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        scores = scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)
        mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, d) to (B, H, L, d/H)."""
        return x.unflatten(-1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


class Layer(nn.Module):
    """U = S + MHA(LN1(S)), S' = U + W2 GELU(W1 LN2(U)): a pre-norm transformer layer, dropout on both branches."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, at: Tensor | None = None) -> Tensor:
        """x (B, N, d) to (B, N, d), or to (B, M, d): the same at the positions `at` (B, M), the others not computed."""
        normed = self.norm1(x)
        queries = normed if at is None else take(normed, at)
        u = (x if at is None else take(x, at)) + self.dropout(self.attention(queries, normed, valid))
        return u + self.dropout(self.down(F.gelu(self.up(self.norm2(u)))))


class SequenceAttention(nn.Module):
    """SA: every token attends to every token of both modalities; only the two global tokens are read.

    Without layers only the final norm is left, and the modalities do not meet. Nothing here tells positions apart
    (the towers did that), so the order of the tokens has no meaning. `type_emb` adds a learnt vector per modality.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float, type_emb: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.types = nn.ParameterList(nn.Parameter(torch.randn(width) * STD) for _ in range(2 * type_emb))

    def forward(self, text: Tensor, text_valid: Tensor, end: Tensor, image: Tensor, image_valid: Tensor) -> Tensor:
        """The global tokens (B, 2, d), image then text.

        Args:
            text: (B, Lt, d) and its mask (B, Lt); the global text token is at position `end` (B,).
            image: (B, 1 + P, d) and its mask; the global image token is the first.
        """
        if len(self.types):
            text, image = text + self.types[0], image + self.types[1]
        at = torch.stack([torch.full_like(end, text.shape[1]), end], 1)
        x, valid = torch.cat([text, image], 1), torch.cat([text_valid, image_valid], 1)
        for layer in self.layers[:-1]:
            x = layer(x, valid)
        return self.norm(self.layers[-1](x, valid, at) if len(self.layers) else take(x, at))


class KeylessGate(nn.Module):
    """MA of one task: e_v = <w_v, v'>, λ = softmax(e_I, e_T), z = λ_I I' + λ_T T' (Long et al. 2018).

    Modes: `separate` vectors per modality, one `shared` vector, their `mean` (λ = 1/2, the ablation), or `concat`, z of
    width 2d. A bias common to both scores cancels, so there is none, or (`bias`) one per modality. Vectors start at 0,
    the plain mean. A modality that is missing gets no weight.
    """

    def __init__(self, width: int, mode: Gate = "separate", bias: bool = False) -> None:
        super().__init__()
        self.mode = mode
        self.width = 2 * width if mode == "concat" else width
        count = {"separate": 2, "shared": 1}.get(mode, 0)
        self.vectors = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(count))
        self.bias = nn.Parameter(torch.zeros(2)) if bias and count else None

    def forward(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, 2, d) of image and text, present (B, 2), at least one of them, to z (B, d or 2d) and λ (B, 2)."""
        if len(self.vectors):
            scores = (tokens * torch.stack([self.vectors[0], self.vectors[-1]])).sum(-1)
        else:
            scores = torch.zeros_like(tokens[..., 0])
        if self.bias is not None:
            scores = scores + self.bias
        weights = scores.masked_fill(~present, -torch.inf).softmax(1)
        if self.mode == "concat":
            return (tokens * present[:, :, None]).flatten(1), weights
        return (weights[:, :, None] * tokens).sum(1), weights


class TaskHead(nn.Module):
    """One task's gate and MLP d -> d -> C: its class logits, and how it weighed the modalities."""

    def __init__(self, width: int, classes: int, gate: KeylessGate, dropout: float) -> None:
        super().__init__()
        self.gate = gate
        self.mlp = nn.Sequential(
            nn.Linear(gate.width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, classes)
        )

    def forward(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, 2, d), present (B, 2) to logits (B, C) and λ (B, 2)."""
        z, weights = self.gate(tokens, present)
        return self.mlp(z), weights


class Network(nn.Module):
    """SA, then MA and a head per task. `words` and `patches` are what makes token features d wide, where given."""

    def __init__(
        self, attention: SequenceAttention, heads: Mapping[str, TaskHead], words: nn.Module | None = None,
        patches: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = attention
        self.tasks = nn.ModuleDict(dict(heads))
        self.words, self.patches = words, patches
        start(self)

    def standardise(self, *features: npt.NDArray[Any] | None) -> None:
        """Fit the projections' input to token features (..., W) of words and of patches, where they are cached."""
        for layer, found in zip((self.words, self.patches), features, strict=True):
            if isinstance(layer, Head) and found is not None:
                flat = found.reshape(-1, found.shape[-1])
                layer.fit(torch.from_numpy(flat[:: len(flat) // SAMPLE + 1]).float())

    def classify(self, tokens: Tensor, present: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """tokens (B, 2, d) float32, present (B, 2) to logits (B, C_k) by task, and λ (B, K, 2)."""
        found = {name: head(tokens, present) for name, head in self.tasks.items()}
        logits = {name: value for name, (value, _) in found.items()}
        return logits, torch.stack([weights for _, weights in found.values()], 1)


def start(module: nn.Module) -> None:
    """Matrices from a truncated normal, biases at 0; gates stay at the 0 they were made with."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=STD)
            nn.init.zeros_(part.bias)


def take(x: Tensor, at: Tensor) -> Tensor:
    """(B, N, d) at positions (B, M): (B, M, d)."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[2]))


def classification(logits: Sequence[Tensor], labels: Tensor, weights: Sequence[float]) -> list[Tensor]:
    """Per task a_k / max(1, n_k) Σ_{i: y_i^k >= 0} CE(p_i^k, y_i^k), with n_k labelled rows; labels (B, K), or -1."""
    terms = []
    for k, (found, weight) in enumerate(zip(logits, weights, strict=True)):
        target = labels[:, k]
        total = F.cross_entropy(found, target, ignore_index=-1, reduction="sum")
        terms.append(weight * total / (target >= 0).sum().clamp_min(1))
    return terms


def soft_itc(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """½ [CE(s A Bᵀ, Q) + CE(s B Aᵀ, Q)]; row i of Q spreads 1 over {j: text_j = text_i}, which `same` (B, B) marks.

    Equal titles would otherwise be each other's false negatives. With all titles different, Q is the identity.
    """
    if not len(image):
        return image.sum()
    target = same.float() / same.sum(1, keepdim=True)
    logits = scale * image @ text.T
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
