"""Settings of serving/ and where it keeps things: frozen dataclasses that `params.yaml` is read into, strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVING = Path("runs/serving")
REPOSITORY = SERVING / "models"
GOLDEN = SERVING / "golden"  # golden/<endpoint>/<version>/: what each installed version must answer
LINEAGE = SERVING / "lineage"  # lineage/<endpoint>/<version>/: the records and rows behind each version
EXPORTS = Path("store/exports")
MODELS = Path("store/models")
VERDICTS = Path("store/verdicts")
DATASET = Path("store/dataset")
CANDIDATE = "_candidate"  # suffix of the model name under which a version is tried before it may take calls


@dataclass(frozen=True, kw_only=True)
class PromotionConfig:
    """Section `promotion`.

    Attributes:
        endpoints: endpoint to the method that the demo and the promote asset take to it.
        cosine: least cosine between the served and the offline embedding of a golden input.
        score_tolerance: served and offline scores may differ by this much, and products this close may swap places.
        p99_ms: latency budget, 99th percentile of one request in milliseconds.
        latency_requests: requests sent to measure it, one after the other, cycling through the golden inputs.
        load_wait_s: how long a version may take to become ready, seconds.
        lock_wait_s: how long to wait for another promotion to end, seconds.
        override_days: how long an override authorises the model it was given for.
    """

    endpoints: dict[str, str]
    cosine: float = 0.9999
    score_tolerance: float = 1e-4
    p99_ms: float = 250.0
    latency_requests: int = 200
    load_wait_s: float = 120.0
    lock_wait_s: float = 300.0
    override_days: float = 14.0

    def __post_init__(self) -> None:
        if not 0 < self.cosine <= 1:
            raise ValueError(f"cosine is {self.cosine}; it must be above 0 and at most 1.")
        if self.latency_requests < 1:
            raise ValueError("latency_requests must be at least 1, or there is no latency to compare with the budget.")
        if not 0 < self.override_days <= 365:
            raise ValueError(f"override_days is {self.override_days}; it must be above 0 and at most 365.")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Section `export`.

    Attributes:
        golden_texts, golden_images, golden_pairs: golden inputs of each kind, drawn evenly from the test split.
        golden_k: products stored per golden answer.
        max_k: most products one request may ask for.
        max_text: most characters of a request's text.
        threads: ONNX Runtime threads per tower; more than the cores to spare makes every request slower.
        max_batch: most requests answered in one pass through the towers.
        queue_delay_us: how long a request may wait for others to share that pass, microseconds.
        cosine: least cosine between the ONNX and the PyTorch embedding of a golden input.
    """

    golden_texts: int = 24
    golden_images: int = 16
    golden_pairs: int = 8
    golden_k: int = 10
    max_k: int = 100
    max_text: int = 1000
    threads: int = 2
    max_batch: int = 32
    queue_delay_us: int = 1000
    cosine: float = 0.99999

    def __post_init__(self) -> None:
        if min(self.golden_texts, self.golden_images, self.golden_pairs) < 1:
            raise ValueError(
                "golden_texts, golden_images and golden_pairs must each be at least 1: parity covers all three."
            )
        if not 1 <= self.golden_k <= self.max_k:
            raise ValueError(f"golden_k is {self.golden_k}; it must lie between 1 and max_k ({self.max_k}).")
