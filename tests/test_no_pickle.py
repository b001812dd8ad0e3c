"""Nothing that is read can run code: no pickle, no unsafe YAML, weights only, in any Python file of the repository."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
FOLDERS = ("data", "training", "serving", "orchestration", "perf", "env", "tests")
HERE = "tests/test_no_pickle.py"
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "skops"}
CALLS: dict[str, tuple[str, bool] | None] = {  # what a call by that name must say; None: it is never called
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "pandas.read_pickle": None,
    "torch.jit.load": None,
    "torch.hub.load": None,
    "torch.package.PackageImporter": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "yaml.load_all": None,
    "builtins.eval": None,
    "builtins.exec": None,
}  # fmt: skip
METHODS = {"to_pickle", "read_pickle", "unsafe_load", "full_load", "load_obj"}
MEANT = {  # a test that shows that a pickle is refused has to make one
    "tests/training/test_towers.py", "tests/training/test_visual_tokens.py",
    # RefCOCO+ is published as a pickled list. Its reader resolves no name, so nothing can run, which a test shows.
    "training/benchmarks/refcoco.py", "tests/training/official/fixture_refcoco.py",
    "tests/training/official/test_refcoco_official.py",
}  # fmt: skip
ALIASES = {"np": "numpy", "pd": "pandas"}


def findings(source: str, path: str) -> Iterator[str]:
    """Every place at which a file could run what it reads."""
    tree = ast.parse(source)
    safe_loaders = _safe_loaders(tree)
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (f"{where}: import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"{where}: from {node.module}"
        elif isinstance(node, ast.Call) and (found := _call(node, safe_loaders)):
            yield f"{where}: {found}"


def _call(node: ast.Call, safe_loaders: set[str]) -> str | None:
    name = _name(node.func)
    if name == "yaml.load":
        loader = next((_name(word.value) for word in node.keywords if word.arg == "Loader"), "")
        return None if loader in safe_loaders else f"yaml.load with the loader {loader or 'of old'}"
    if name in CALLS:
        wanted = CALLS[name]
        if wanted is None:
            return name
        given = {word.arg: getattr(word.value, "value", ...) for word in node.keywords}
        if given.get(wanted[0], ...) is not wanted[1]:
            return f"{name} without {wanted[0]}={wanted[1]}"
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        return f".{node.func.attr}"
    return None


def _name(node: ast.AST) -> str:
    """`numpy.load` for `np.load`; `builtins.eval` for `eval`."""
    if isinstance(node, ast.Name):
        return f"builtins.{node.id}" if node.id in ("eval", "exec") else ALIASES.get(node.id, node.id)
    return f"{_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def _safe_loaders(tree: ast.AST) -> set[str]:
    """PyYAML's loaders that build plain values only, and classes of them."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return safe | {node.name for node in classes if node.bases and all(_name(base) in safe for base in node.bases)}


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_no_file_of_the_repository_loads_what_could_run() -> None:
    found = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if name != HERE:
            found += [f for f in findings(path.read_text(encoding="utf-8"), name)
                      if not (name in MEANT and "import pickle" in f)]  # fmt: skip
    assert found == []


@pytest.mark.parametrize("line", [
    "import pickle", "from joblib import load", "import torch\ntorch.load('x')", "torch.load('x', weights_only=False)",
    "import numpy as np\nnp.load('x')", "np.load('x', allow_pickle=True)", "pd.read_pickle('x')",
    "frame.to_pickle('x')", "yaml.load(text)",
    "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "eval(text)",
    "class L(yaml.Loader): ...\nyaml.load(text, Loader=L)",
])  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert list(findings(line, "x.py"))


@pytest.mark.parametrize("line", [
    "torch.load('x', weights_only=True)", "np.load('x', allow_pickle=False)", "yaml.safe_load(text)",
    "yaml.load(text, Loader=yaml.BaseLoader)", "class L(yaml.SafeLoader): ...\nyaml.load(text, Loader=L)",
    "model.eval()", "safetensors.torch.load_file('x')",
])  # fmt: skip
def test_the_search_leaves_alone(line: str) -> None:
    assert list(findings(line, "x.py")) == []


class Hostile:
    """Runs on being loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))


def test_the_ways_that_are_allowed_refuse_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(), tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        torch.load(tmp_path / "x.pt", weights_only=True)
    np.save(tmp_path / "x.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "x.npy", allow_pickle=False)
    assert not Path("ran").exists()
