"""The benchmarks: one file each. A new benchmark is one file and one line here."""

from training.benchmarks import attributes, catalog_retrieval, category, composed_retrieval, compositional, robustness
from training.outcomes import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        compositional.BENCHMARK,
        catalog_retrieval.BENCHMARK,
        composed_retrieval.BENCHMARK,
        attributes.BENCHMARK,
        category.BENCHMARK,
        *robustness.BENCHMARKS,
    )
}  # fmt: skip


def of_endpoint(endpoint: str) -> dict[str, Benchmark]:
    """The exams that decide about an endpoint."""
    return {name: benchmark for name, benchmark in sat_for(endpoint).items() if benchmark.gate_metrics}


def sat_for(endpoint: str) -> dict[str, Benchmark]:
    """All exams of an endpoint: those that decide, and those that are only shown."""
    return {name: benchmark for name, benchmark in BENCHMARKS.items() if benchmark.endpoint == endpoint}
