"""Served answers against offline answers, and served latency against its budget.

A version agrees when every golden input gets the offline embedding (cosine), the offline scores, and the offline
products in the offline order; products whose offline scores lie within the tolerance may swap places.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.config import PromotionConfig
from serving.golden import Case
from serving.triton import Answer, Query, Triton

WARM_UP = 5
SHOWN = 3  # failures named in a message


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The comparison of one version: least cosines over the golden inputs, and every failed input with its reason."""

    cases: int
    text_cosine: float
    image_cosine: float
    failures: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why the version does not agree; empty if it does."""
        if not self.failures:
            return ""
        shown = "; ".join(self.failures[:SHOWN])
        return f"{len(self.failures)} of {self.cases} golden inputs differ from their offline answers: {shown}"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of one request, sent one after the other: median and 99th percentile."""

    requests: int
    p50_ms: float
    p99_ms: float


def compare(
    client: Triton, model: str, version: int, cases: Sequence[Case], model_record: str, config: PromotionConfig
) -> Parity:
    """Ask one version every golden input. Raises `TritonError` only for a server that answers nothing at all."""
    failures, cosines = [], {"text": [1.0], "image": [1.0]}
    for case in cases:
        answer = client.search(_query(case), model=model, version=version)
        reasons = differences(case, answer, config)
        if answer.record != model_record:
            reasons.append(f"answered by model {answer.record[:12]}, not {model_record[:12]}")
        failures += [f"{case.case}: {', '.join(reasons)}"] if reasons else []
        for kind, offline in (("text", case.text_embedding), ("image", case.image_embedding)):
            if offline is not None:
                cosines[kind].append(cosine(getattr(answer, f"{kind}_embedding"), offline))
    return Parity(
        cases=len(cases), text_cosine=min(cosines["text"]), image_cosine=min(cosines["image"]),
        failures=tuple(failures),
    )  # fmt: skip


def differences(case: Case, answer: Answer, config: PromotionConfig) -> list[str]:
    """In words, what of a served answer is not the offline answer."""
    found = []
    for kind, offline in (("text", case.text_embedding), ("image", case.image_embedding)):
        served = getattr(answer, f"{kind}_embedding")
        if offline is not None and not cosine(served, offline) >= config.cosine:
            found.append(f"{kind} embedding at cosine {cosine(served, offline):.6f}, below {config.cosine}")
    if case.match is not None and not abs(answer.match - case.match) <= config.score_tolerance:
        found.append(f"match {answer.match:.4f} instead of {case.match:.4f}")
    wrong = _misplaced(case, answer, config.score_tolerance)
    if wrong:
        found.append(wrong)
    return found


def cosine(served: np.ndarray, offline: Sequence[float]) -> float:
    """Cosine of two vectors; -1 if they cannot be compared (another width, not finite)."""
    if len(served) != len(offline) or not np.isfinite(served).all():
        return -1.0
    left, right = np.asarray(served, np.float64), np.asarray(offline, np.float64)
    return float(left @ right / max(float(np.linalg.norm(left) * np.linalg.norm(right)), 1e-12))


def latency(client: Triton, model: str, version: int, cases: Sequence[Case], requests: int) -> Latency:
    """Time `requests` requests of the golden mix (texts, photos, pairs in turn), one at a time, after a warm-up."""
    mix = _interleaved(cases)
    taken = []
    for number in range(-WARM_UP, requests):
        begun = time.perf_counter()
        client.search(_query(mix[number % len(mix)]), model=model, version=version)
        if number >= 0:
            taken.append(1000 * (time.perf_counter() - begun))
    p50, p99 = np.percentile(taken, [50, 99])
    return Latency(requests=requests, p50_ms=round(float(p50), 2), p99_ms=round(float(p99), 2))


def _misplaced(case: Case, answer: Answer, tolerance: float) -> str | None:
    """The first rank whose product, title or score is not the offline one; None if the lists agree."""
    if len(answer.ids) != len(case.ids):
        return f"{len(answer.ids)} products instead of {len(case.ids)}"
    offline = dict(zip(case.ids, zip(case.scores, case.titles, strict=True), strict=True))
    for rank, (product, score) in enumerate(zip(answer.ids, answer.scores, strict=True)):
        # A product that is not in the stored list may only stand there by tying with the last one that is.
        own_score, own_title = offline.get(product, (case.scores[-1], answer.titles[rank]))
        if not max(abs(score - case.scores[rank]), abs(score - own_score)) <= tolerance:
            return f"rank {rank + 1} is {product} ({score:.4f}) instead of {case.ids[rank]} ({case.scores[rank]:.4f})"
        if answer.titles[rank] != own_title:
            return f"{product} is called {answer.titles[rank]!r} instead of {own_title!r}"
    if len(set(answer.ids)) != len(answer.ids):
        return "a product is named twice"
    return None


def _interleaved(cases: Sequence[Case]) -> list[Case]:
    """Texts, photos and pairs in turn, so that any run of requests holds the same mix."""
    kinds: dict[tuple[bool, bool], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.text is not None, case.image is not None), []).append(case)
    longest = max(len(group) for group in kinds.values())
    return [group[i % len(group)] for i in range(longest) for group in kinds.values()]


def _query(case: Case) -> Query:
    return Query(text=case.text, image=case.image, k=len(case.ids))
