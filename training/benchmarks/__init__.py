"""The benchmarks: one file each. A new benchmark is one file and one line here."""

from training.benchmarks import attributes, catalog_retrieval, composed_retrieval, compositional
from training.outcomes import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        compositional.BENCHMARK,
        catalog_retrieval.BENCHMARK,
        composed_retrieval.BENCHMARK,
        attributes.BENCHMARK,
    )
}  # fmt: skip


def of_endpoint(endpoint: str) -> dict[str, Benchmark]:
    """The exams that decide about an endpoint."""
    return {name: benchmark for name, benchmark in BENCHMARKS.items() if benchmark.endpoint == endpoint}
