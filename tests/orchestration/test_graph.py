"""The asset graph of this repository, generated from its dvc.yaml. `python tests/orchestration/test_graph.py` rewrites
the golden file after a change that is meant."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data.params import UserError
from orchestration import boundary, checks, definitions, stages, up

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "graph.json"
PACKAGES = ("data", "training", "serving", "orchestration")
# How a stage runs, not what it computes.
CORE = {*(f"data/{name}.py" for name in ("stage", "record", "params", "dvc")), "training/__init__.py"}
REGISTRY = "training/methods/__init__.py"
HEAVY = {"torch", "torchvision", "great_expectations", "open_clip", "transformers", "timm", "onnxruntime", "pandas",
         "pyarrow", "matplotlib", "tritonclient", "PIL"}  # fmt: skip
GRAPH = stages.read(ROOT)


def describe() -> dict[str, Any]:
    """{asset key: what an operator sees of it in the graph}."""
    assets = definitions.build(ROOT).resolve_asset_graph()
    return {
        key.to_user_string(): {
            "group": node.group_name, "kinds": sorted(node.kinds), "owners": node.owners,
            "pools": sorted(node.pools or ()), "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
        }
        for key in sorted(assets.get_all_asset_keys())
        for node in [assets.get(key)]
    }  # fmt: skip


def test_the_graph_is_the_golden_one() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert describe() == golden, f"if this is meant: python {Path(__file__).relative_to(ROOT)}"


def test_every_stage_is_one_asset_with_a_description_and_an_owner() -> None:
    assets = definitions.build(ROOT).resolve_asset_graph()
    ends = {boundary.LANDING, *boundary.endpoint_assets(ROOT)}
    found = {key.to_user_string(): assets.get(key) for key in assets.get_all_asset_keys()}
    assert set(found) == {stage.asset for stage in GRAPH.stages.values()} | ends
    for name, node in found.items():
        assert node.description.strip().endswith("."), name
        assert node.owners, name
        assert node.kinds, name


def test_stages_are_few() -> None:
    """Four for each of seven methods and the few they share; DVC takes its time over every one of them."""
    assert len(GRAPH.stages) < 36


def _imports(path: Path) -> Iterator[str]:
    """Files of first-party modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield from _files(name)


def _files(module: str) -> Iterator[str]:
    """The module's file and the `__init__` files on the way to it, where they hold anything."""
    parts = module.split(".")
    candidates = [Path(*parts).with_suffix(".py")]
    candidates += [Path(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    for candidate in candidates:
        path = ROOT / candidate
        if path.is_file() and path.read_text(encoding="utf-8").strip():
            yield candidate.as_posix()


def _closure(stage: stages.Stage) -> set[str]:
    """The files whose content may change the stage's result.

    The list of methods stands for the one method that the command names: a new method must not retrain the others.
    """
    assert stage.module
    method = f"training/methods/{stage.cmd.split()[-1]}.py"
    todo, seen = list(_files(stage.module)), set[str]()
    while todo:
        name = todo.pop()
        if name == REGISTRY:
            name = method if (ROOT / method).exists() else name
        if name not in seen and name not in CORE and name != REGISTRY:
            seen.add(name)
            todo += _imports(ROOT / name)
    return seen


@pytest.mark.parametrize("stage", GRAPH.stages.values(), ids=lambda stage: stage.name)
def test_a_stage_lists_every_code_file_that_it_imports(stage: stages.Stage) -> None:
    listed = GRAPH.code(stage)
    imported = _closure(stage)
    assert imported, f"{stage.module} is not a module of this repository"
    missing = sorted(f for f in imported if not any(f == dep or f.startswith(f"{dep}/") for dep in listed))
    assert not missing, f"dvc.yaml: {stage.name}: add to deps: {', '.join(missing)}"
    assert not [dep for dep in listed if not (ROOT / dep).exists()]


def test_definitions_load_fast_and_light() -> None:
    code = (
        "import orchestration.definitions, sys, time; "  # processor time, because a CI machine may be busy
        "print(time.process_time()); print(*{name.split('.')[0] for name in sys.modules})"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "FITTINGROOM_WORKSPACE": str(ROOT)}
    runs = [
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True) for _ in range(3)
    ]
    seconds = min(float(run.stdout.split()[0]) for run in runs)
    assert not HEAVY & set(runs[0].stdout.split())
    assert seconds <= 1.0


def test_checks_are_known_before_the_first_run() -> None:
    from data.expectations import Thresholds, rules

    assets = definitions.build(ROOT).resolve_asset_graph()
    names = {(key.asset_key.to_user_string(), key.name) for key in assets.asset_check_keys}
    for stage in GRAPH.stages.values():
        assert (stage.asset, checks.INTEGRITY) in names
    for rule in rules(Thresholds()):
        assert (boundary.LANDING, rule.name) in names


def test_string_selections_parse() -> None:
    up.check_environment()


def test_a_broken_selection_grammar_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> dg.AssetSelection:
        raise TypeError("ord() expected string of length 1")

    monkeypatch.setattr(dg.AssetSelection, "from_string", broken)
    with pytest.raises(UserError, match=r"antlr4.*`make setup` restores it"):
        up.check_environment()


STAGE = "{cmd: python -m x, deps: [%s], outs: [%s], meta: {asset: a/%s, group: g, kinds: [python], owner: o}}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stages: {a: {cmd: x, wdir: y}}", r"a: the key\(s\) wdir are not supported"),
        ("stages: {a: {cmd: x, outs: [y]}}", "a: meta lacks asset, group, kinds, owner"),
        ("stages: {a: {cmd: '${nothing.here}'}}", r"`\$\{nothing.here\}` is neither a matrix item nor a value"),
        ("stages: {a: {foreach: [x], do: {cmd: x}}}", "`foreach` must be a mapping, with the stage below `do`"),
        ("stages: {a: {foreach: {x: {}}, cmd: y}}", r"a: the key\(s\) cmd are not supported"),
        ("stages: [", "not valid YAML"),
        (f"stages: {{a: {STAGE % ('y', 'x', 1)}, b: {STAGE % ('x', 'y', 2)}}}", "a, b depend on each other"),
        (f"stages: {{a: {STAGE % ('x', 'y', 1)}, b: {STAGE % ('x', 'z', 1)}}}", "a and b have the same asset `a/1`"),
        (f"stages: {{a: {STAGE % ('x', 'y, z', 1)}}}", "outs exactly one folder"),
    ],
)
def test_a_dvc_yaml_that_is_not_right_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text("preset: starter\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        stages.read(tmp_path)


def test_a_folder_without_dvc_yaml_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Run from the folder that holds dvc\.yaml"):
        stages.read(tmp_path)


def test_compiled_files_are_no_code(tmp_path: Path) -> None:
    """DVC hashes folders by .dvcignore; what it ignores must be what `dvc_hash` leaves out."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/a.py").write_text("A = 1\n", encoding="utf-8")
    before = stages.dvc_hash(tmp_path / "package")
    (tmp_path / "package/__pycache__").mkdir()
    (tmp_path / "package/__pycache__/a.cpython-311.pyc").write_bytes(b"x")
    assert stages.dvc_hash(tmp_path / "package") == before
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").split()
    assert "__pycache__" in ignored


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(describe(), indent=2) + "\n", encoding="utf-8")
