"""Every official benchmark, audited on its fixture: what a constant and a random scorer get, and what bad files do.

A constant scorer is never right by the house rule, and gets what `constant` says by the official one. A random scorer
gets `chance`. Metrics come from the outcomes alone, in whatever order.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.params import UserError
from tests.training.official.audit_exams import ConstantExam, RandomExam
from training.official import MODULES, OFFICIAL
from training.official.contract import Official
from training.official.files import find
from training.official.scoring import OFFICIAL as TWIN
from training.outcomes import SCHEMA

SEEDS = range(24)
HERE = Path(__file__).parent
Load = Callable[[str], tuple[Official, Path, pa.Table]]


@functools.cache
def fixtures() -> dict[str, Callable[[Path], None]]:
    """{benchmark: what writes its fixture}, from every fixture_*.py."""
    modules = [importlib.import_module(f"tests.training.official.{path.stem}") for path in HERE.glob("fixture_*.py")]
    return {name: write for module in modules for name, write in module.FIXTURES.items()}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The benchmark of a name, the folder of all benchmarks, and its items, made once."""

    @functools.cache
    def load(name: str) -> tuple[Official, Path, pa.Table]:
        root = tmp_path_factory.mktemp(name)
        fixtures()[name](root)
        return OFFICIAL[name], root, OFFICIAL[name].load(root / name)

    return load


def test_every_benchmark_has_a_fixture() -> None:
    assert set(MODULES) <= set(fixtures())


@pytest.mark.parametrize("name", MODULES)
def test_items_and_outcomes_are_of_one_shape(name: str, loaded: Load) -> None:
    benchmark, _, items = loaded(name)
    assert benchmark.name == name
    assert items.num_rows >= 12
    assert len(items["item_id"].unique()) == items.num_rows
    assert items["group"].type == pa.int64()
    outcomes = benchmark.score(items, RandomExam(1))
    assert outcomes.schema == SCHEMA
    assert set(outcomes["benchmark"].to_pylist()) == {name}
    rows = list(zip(outcomes["metric"].to_pylist(), outcomes["item_id"].to_pylist(), strict=True))
    assert len(set(rows)) == len(rows)
    values = outcomes["outcome"].to_numpy()
    assert ((values >= 0) & (values <= 1)).all()
    found = benchmark.metrics(outcomes)
    assert {benchmark.headline, *benchmark.chance, *benchmark.constant} <= set(found)
    assert all(np.isfinite(value) for value in found.values())
    turned = outcomes.take(np.random.default_rng(0).permutation(outcomes.num_rows))
    assert benchmark.metrics(turned) == pytest.approx(found)


@pytest.mark.parametrize("name", MODULES)
def test_a_constant_scorer_is_never_right(name: str, loaded: Load) -> None:
    benchmark, _, items = loaded(name)
    found = benchmark.metrics(benchmark.score(items, ConstantExam()))
    assert found[benchmark.headline] == 0
    for metric, expected in benchmark.constant.items():
        if metric + TWIN in found:
            assert found[metric] == 0, metric
        assert found.get(metric + TWIN, found[metric]) == pytest.approx(expected), metric


@pytest.mark.parametrize("name", MODULES)
def test_a_random_scorer_gets_chance(name: str, loaded: Load) -> None:
    """The mean over seeds, within four of its standard errors."""
    benchmark, _, items = loaded(name)
    if not benchmark.chance:
        pytest.skip("what guessing gets is not known")
    drawn = [benchmark.metrics(benchmark.score(items, RandomExam(seed))) for seed in SEEDS]
    for metric, expected in benchmark.chance.items():
        values = np.array([found[metric] for found in drawn])
        assert abs(values.mean() - expected) <= max(4 * values.std() / len(SEEDS) ** 0.5, 1.0), metric


@pytest.mark.parametrize("name", MODULES)
def test_bad_files_are_one_clear_error(name: str, loaded: Load, tmp_path: Path) -> None:
    benchmark, _, _ = loaded(name)
    fixtures()[name](tmp_path)
    for file in benchmark.files:
        path = find(tmp_path / name, file.path)
        if path is None:
            continue
        content = path.read_bytes()
        for bad in (b"\x00\xff{[", b""):
            path.write_bytes(bad)
            said = _complaint(benchmark, tmp_path / name)
            assert path.name.removesuffix(".gz") in said or (not file.needed and not said)
        for bad in _damaged(path.name, content):  # fields that scoring does not read may be absent
            path.write_bytes(bad)
            said = _complaint(benchmark, tmp_path / name)
            assert not said or any(Path(declared.path).name in said for declared in benchmark.files), said
        path.write_bytes(content)


def _complaint(benchmark: Official, folder: Path) -> str:
    """What `load` says is wrong; empty if nothing. Any other exception than `UserError` is a mistake."""
    try:
        benchmark.load(folder)
    except UserError as error:
        return str(error)
    return ""


def _damaged(name: str, content: bytes) -> Iterator[bytes]:
    """The file without each field of its first entry, and with each of them empty."""
    if not name.endswith((".json", ".jsonl")):
        return
    first, _, rest = content.partition(b"\n")
    if rest.strip() and first.startswith(b"{") and first.endswith(b"}"):  # JSON lines, whatever it is called
        yield from (json.dumps(bad).encode() + b"\n" + rest for bad in _without(json.loads(first)))
        return
    whole = json.loads(content)
    yield from (json.dumps(kind()).encode() for kind in (dict, list))
    for key in _first(whole):
        for bad in _without(whole[key]):
            made = whole.copy()
            made[key] = bad
            yield json.dumps(made).encode()


def _first(whole: Any) -> list[Any]:
    if isinstance(whole, dict):
        return list(whole)[:1]
    return [0] if whole else []


def _without(entry: Any) -> Iterator[Any]:
    yield None
    if isinstance(entry, dict):
        for key in entry:
            yield {name: value for name, value in entry.items() if name != key}
            yield {**entry, key: None}
    if isinstance(entry, list):
        yield entry[:-1]
