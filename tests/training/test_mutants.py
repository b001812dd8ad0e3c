"""Every mistake that a specification names is put into a copy of the sources, and its test must fail."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from pathlib import Path

import pytest

from tests.training import mutants
from tests.training.mutants import ROOT

FOUND = [
    pytest.param(*mutant, id=f"{module.name}-{number}")
    for module in pkgutil.iter_modules(mutants.__path__)
    for number, mutant in enumerate(importlib.import_module(f"{mutants.__name__}.{module.name}").MUTANTS)
]
PASSED, FAILED = 0, 1  # pytest's exit codes; 2 and above are errors of collection or usage, which prove nothing


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and their tests; the starter pictures, which no test writes to, are linked."""
    folder = tmp_path_factory.mktemp("mutants")
    skip = shutil.ignore_patterns("__pycache__", "starter", "browser", "e2e")
    for name in mutants.OWN:
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    (folder / "data/starter").symlink_to(ROOT / "data/starter")
    for name in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_there_are_mutants_and_each_edits_one_place() -> None:
    assert FOUND
    wrong = []
    for parameters in FOUND:
        file, old, new, node = parameters.values
        count = (ROOT / file).read_text(encoding="utf-8").count(old)
        if count != 1 or old == new:
            wrong.append(f"{parameters.id}: {old!r} stands {count} times in {file}")
        test, *_, name = node.split("::")
        if f"def {name.partition('[')[0]}(" not in (ROOT / test).read_text(encoding="utf-8"):
            wrong.append(f"{parameters.id}: no test {node}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_without_a_mutation_all_these_tests_pass(copy: Path) -> None:
    code, output = mutants.run(copy, *sorted({parameters.values[3] for parameters in FOUND}))
    assert code == PASSED, output[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "old", "new", "node"), FOUND)
def test_the_mistake_is_found(copy: Path, file: str, old: str, new: str, node: str) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        code, output = mutants.run(copy, node)
    finally:
        path.write_text(text, encoding="utf-8")
    assert code == FAILED, output[-3000:]
