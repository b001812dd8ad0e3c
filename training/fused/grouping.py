"""Mini-batches of near neighbours (GRIT) without false negatives (semi-hard refinement), and ITM negatives alike.

GRIT: Byun et al. 2022 (arXiv 2208.04060), code jaeseokbyun/GRIT-VLP; the semi-hard refinement is SyncMask's idea
(arXiv 2404.01156), its definition here a choice. Symbols:
    S (M, M)   cosines, rows images, columns texts;  s_j the similarity of candidate j to the current element `cur`
    s⁺         S[cur, cur], the element's own pair;  p product id, x text id;  ε the margin below s⁺
    A0 unused elements;  A1 those of A0 that share no product and no text with the mini-batch being filled or with cur
    A2 those of A1 with s_j < s⁺ - ε
Raw cosines stand where GRIT takes a softmax at a small temperature: it underflows, and used elements then tie with
unused ones. The order is the same.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.text import title_key
from training.sampling import Integers

Floats = npt.NDArray[np.float32]
Picks = collections.Counter[str]  # how often a pick was `rule` (as the mode says), `fallback`, or `forced`
LEFT_OUT = -torch.inf


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How hard a neighbour may be.

    Attributes:
        hard: `top1` takes the nearest of A0 (GRIT); `exclude_id` the nearest of A1; `semi` the nearest of A2;
            `rank_window` one of the nearest of A1 by chance, see `window`.
        margin: ε of A2.
        window: first and last rank, 1 is the nearest, of which `rank_window` takes any alike.
    """

    hard: Literal["top1", "exclude_id", "semi", "rank_window"] = "semi"
    margin: float = 0.0
    window: tuple[int, int] = (2, 10)

    def __post_init__(self) -> None:
        if not 1 <= self.window[0] <= self.window[1]:
            raise ValueError(f"window must be (first, last) rank with 1 <= first <= last, found {self.window}.")


@dataclass(frozen=True)
class Collected:
    """What an epoch collected, one row per product seen: normalised student features (N, D) and ids (N,).

    `index` is the position in the training products: int64, for float32 is exact below 2^24 only.
    """

    image: Floats
    text: Floats
    index: Integers
    product: Integers
    words: Integers

    def rows(self, places: Integers) -> Collected:
        """The rows at `places`."""
        return Collected(*(array[places] for array in self._arrays()))

    def __add__(self, other: Collected) -> Collected:
        return Collected(*(np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)))

    def __len__(self) -> int:
        return len(self.index)

    def _arrays(self) -> tuple[Any, ...]:
        return self.image, self.text, self.index, self.product, self.words


def regroup(
    seen: Collected, batch: int, space: int, rule: Rule, rng: np.random.Generator
) -> tuple[Integers, Picks]:  # fmt: skip
    """Order of `seen.index` in which consecutive products are near neighbours, and how its picks were made.

    The rows are shuffled and cut into sub-queues of `space` (rounded down to whole mini-batches; the last may be
    shorter), and each is chained from a random start [GRIT models/GRIT_utils.py].
    """
    space = max(batch, space // batch * batch)
    shuffled = rng.permutation(len(seen))
    order: list[Integers] = []
    picks: Picks = collections.Counter()
    for start in range(0, len(seen), space):
        part = seen.rows(shuffled[start : start + space])
        first = int(rng.integers(len(part)))
        places, found = chain(part.image @ part.text.T, part.product, part.words, batch, rule, first, rng)
        order.append(part.index[places])
        picks += found
    return np.concatenate(order) if order else np.zeros(0, np.int64), picks


def chain(
    similarity: Floats, products: Integers, words: Integers, batch: int, rule: Rule, first: int,
    rng: np.random.Generator,
) -> tuple[Integers, Picks]:  # fmt: skip
    """A permutation of M elements from `first` on, image to text and text to image in turn.

    What a mini-batch holds is forgotten after every `batch` elements; the element the next pick starts from counts
    always. Forced picks (A1 empty) are the only ones that can pair a product or a text with itself.
    """
    count = len(similarity)
    unused, held = np.ones(count, bool), np.zeros(count, bool)
    order, picks, current = [first], collections.Counter[str](), first
    for place in range(1, count):
        unused[current] = False
        alike = (products == products[current]) | (words == words[current])
        held = held | alike if place % batch else np.zeros(count, bool)  # what the mini-batch being filled excludes
        s = similarity[current] if place % 2 else similarity[:, current]
        current, kind = _next(s, float(similarity[current, current]), unused, held | alike, rule, rng)
        order.append(current)
        picks[kind] += 1
    return np.array(order), picks


def _next(
    s: Floats, own: float, unused: npt.NDArray[np.bool_], banned: npt.NDArray[np.bool_], rule: Rule,
    rng: np.random.Generator,
) -> tuple[int, str]:  # fmt: skip
    """The next element and how it was found: A2 or what the mode takes, else the least of A1, else the least of A0."""
    if rule.hard == "top1":
        return int(np.where(unused, s, -np.inf).argmax()), "rule"
    allowed = unused & ~banned
    if not allowed.any():
        return int(np.where(unused, s, np.inf).argmin()), "forced"
    if rule.hard == "rank_window":
        nearest = np.argsort(-np.where(allowed, s, -np.inf), kind="stable")[: allowed.sum()]
        low, high = rule.window
        window = nearest[low - 1 : high]
        return int(rng.choice(window if len(window) else nearest[-1:])), "rule"
    semi = allowed & (s < own - rule.margin) if rule.hard == "semi" else allowed
    if semi.any():
        return int(np.where(semi, s, -np.inf).argmax()), "rule"
    return int(np.where(allowed, s, np.inf).argmin()), "fallback"


def mini_batches(order: Integers, batch: int, rng: np.random.Generator) -> list[Integers]:
    """Whole mini-batches of `order` in random order, each as it is; what fills none is left out."""
    chunks = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
    return [chunks[i] for i in rng.permutation(len(chunks))]


def take_in(
    chunks: list[Integers], left_out: Integers, products: Integers, words: Integers, rng: np.random.Generator
) -> list[Integers]:  # fmt: skip
    """As many mini-batches, with products of `left_out` in them: nothing stays out of all later epochs.

    As few chunks as hold that many products are broken up and mixed with the left-out ones, which come first. Where no
    mini-batches without two equal products or texts can be made of them, the next chunks are tried; where none will do,
    all stay as they are. `products` and `words` are indexed by the elements.
    """
    if not chunks or not len(left_out):
        return chunks
    batch = len(chunks[0])
    count = min(-(-len(left_out) // batch), len(chunks))
    for start in range(len(chunks) - count + 1):
        loose = [rng.permutation(left_out), rng.permutation(np.concatenate(chunks[start : start + count]))]
        made = _without_pairs(np.concatenate(loose), batch, products, words)[:count]
        if len(made) == count:
            mixed = chunks[:start] + made + chunks[start + count :]
            return [mixed[i] for i in rng.permutation(len(mixed))]
    return chunks


def _without_pairs(pool: Integers, batch: int, products: Integers, words: Integers) -> list[Integers]:
    """Mini-batches filled in the order of `pool`; what shares a product or text with one goes to the next."""
    made, rest = [], pool.tolist()
    while len(rest) >= batch:
        members: list[int] = []
        held: tuple[set[int], set[int]] = (set(), set())
        put_off: list[int] = []
        for element in rest:
            if len(members) == batch or products[element] in held[0] or words[element] in held[1]:
                put_off.append(element)
            else:
                members.append(element)
                held[0].add(int(products[element]))
                held[1].add(int(words[element]))
        if len(members) < batch:
            break
        made.append(np.array(members))
        rest = put_off
    return made


def text_ids(texts: Sequence[str]) -> Integers:
    """The same number for texts that are equal but for case and space."""
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(title_key(text), len(numbers)) for text in texts], np.int64)


@dataclass(frozen=True)
class Negatives:
    """Of every element of a batch: which other one is its negative (B,), and whether it has one; rates of `Picks`."""

    index: Tensor
    valid: Tensor
    fallback: Tensor


def negatives(
    similarity: Tensor, products: Tensor, words: Tensor, rule: Rule, chance: Tensor | None = None, tau: float = 1.0
) -> Negatives:  # fmt: skip
    """ITM negatives of the rows of S (B, B); pass S transposed for the other direction.

    Args:
        products, words: (B,); equal ones are never each other's negative, except under `top1`.
        chance: uniform numbers (B, B) for `rank_window`, and for `semi`, `exclude_id` and `top1` to draw in proportion
            to exp(s/tau) (ALBEF) within the allowed set; without them the nearest allowed is taken (GRIT).

    A row whose allowed set is empty takes the farthest element of another product and text, and none if there is none.
    """
    same = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if rule.hard != "top1":
        same = (products[:, None] == products) | (words[:, None] == words)
    other = ~same
    wanted = other
    if rule.hard == "semi":
        wanted = other & (similarity < similarity.diagonal()[:, None] - rule.margin)
    fallback = other.any(1) & ~wanted.any(1)
    if rule.hard == "rank_window":
        best = _in_window(similarity.masked_fill(same, LEFT_OUT), other.sum(1), rule.window, chance)
    else:
        scores = similarity if chance is None else similarity / tau - (-chance.clamp(1e-12, 1 - 1e-7).log()).log()
        best = scores.masked_fill(~wanted, LEFT_OUT).argmax(1)
    least = similarity.masked_fill(same, torch.inf).argmin(1)
    return Negatives(torch.where(fallback, least, best), other.any(1), fallback)


def _in_window(scores: Tensor, counts: Tensor, window: tuple[int, int], chance: Tensor | None) -> Tensor:
    """Per row an element of rank window[0] … window[1], nearest first, among its `counts` allowed ones."""
    if chance is None:
        raise ValueError("rank_window needs chance numbers.")
    high = counts.clamp_max(window[1])
    low = torch.minimum(high, torch.full_like(high, window[0]))
    rank = low + (chance[:, 0] * (high - low + 1)).long().clamp_max((high - low).clamp_min(0))
    return scores.argsort(dim=1, descending=True, stable=True).gather(1, (rank - 1).clamp_min(0)[:, None]).squeeze(1)
