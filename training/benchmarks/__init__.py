"""The benchmarks: one file each. A new benchmark is one file and one line here."""

from training.benchmarks import catalog_retrieval, compositional
from training.outcomes import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        compositional.BENCHMARK,
        catalog_retrieval.BENCHMARK,
    )
}  # fmt: skip
