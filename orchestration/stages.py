"""The stages of dvc.yaml, read as DVC reads them, and the version of each: what its result depends on besides data.

A stage's *version* is one hash over its command, its parameters' values, the contents of its code dependencies and its
output path. It is computed from the workspace (`wanted`) and from dvc.lock (`locked`) by the same function, so that the
two differ exactly when `dvc status` names the stage for one of these reasons. Dagster shows it as the `code_version`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.dvc import DVC_LOCK, DVC_YAML
from data.params import PARAMS, UserError, canonical_hash, load
from data.record import RECORD

DROPS = "store/drops"
REGISTRY = "runs/serving/registry.jsonl"
LANDING_ASSET = "catalog/drops"
META_KEYS = {"asset", "group", "kinds", "owner"}
STAGE_KEYS = {"cmd", "deps", "params", "outs", "desc", "meta", "matrix"}
LOOP_KEYS = {"foreach", "do"}
_REFERENCE = re.compile(r"\$\{([^}]+)\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage after matrix expansion; `name` is DVC's (`train@ce_clip`), `out` its one output folder."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    out: str
    description: str
    asset: str
    group: str
    kinds: tuple[str, ...]
    owner: str
    pool: str | None

    @property
    def module(self) -> str | None:
        """The module of `python -m MODULE ...`; None for another kind of command."""
        words = self.cmd.split()
        return words[2] if words[:2] == ["python", "-m"] else None


@dataclasses.dataclass(frozen=True)
class Graph:
    """The stages of one workspace by name, in the order of dvc.yaml, and what feeds what; `values`: its params.yaml."""

    root: Path
    stages: Mapping[str, Stage]
    values: Mapping[str, Any]

    def upstream(self, stage: Stage) -> dict[str, str]:
        """{dependency path: asset key} of the dependencies that another stage, or landing, produces."""
        made = {other.out: other.asset for other in self.stages.values()} | {DROPS: LANDING_ASSET}
        return {dep: made[dep] for dep in stage.deps if dep in made}

    def code(self, stage: Stage) -> tuple[str, ...]:
        """The dependencies that nobody produces: source files and packages."""
        produced = self.upstream(stage)
        return tuple(dep for dep in stage.deps if dep not in produced)

    def downstream(self, names: Iterator[str] | set[str]) -> set[str]:
        """`names` and every stage that depends on one of them, near or far."""
        reached = set(names)
        outs = {self.stages[name].out for name in reached}
        for stage in _sorted_by_dependency(self.stages):
            if outs.intersection(stage.deps):
                reached.add(stage.name)
                outs.add(stage.out)
        return reached

    def by_asset(self, key: str) -> Stage:
        """The stage behind an asset key."""
        return next(stage for stage in self.stages.values() if stage.asset == key)


def workspace() -> Path:
    """The folder that holds dvc.yaml: `FITTINGROOM_WORKSPACE`, or the current folder."""
    return Path(os.environ.get("FITTINGROOM_WORKSPACE") or Path.cwd()).resolve()


def read(root: Path) -> Graph:
    """The stages of `root`/dvc.yaml. Raises `UserError` for anything this reader does not know."""
    path = root / DVC_YAML
    content = load(path)
    values = load(root / PARAMS)
    stages: dict[str, Stage] = {}
    for name, body in content.get("stages", {}).items():
        for stage in _expand(name, body, values, path):
            stages[stage.name] = stage
    _no_twins(stages, path)
    return Graph(root, stages, values)


def wanted(graph: Graph, stage: Stage) -> str:
    """The version of a stage as the workspace had it when `graph` was read."""
    return _version(
        stage.cmd,
        {key: _lookup(graph.values, key) for key in stage.params},
        {dep: dvc_hash(graph.root / dep) for dep in graph.code(stage)},
        stage.out,
    )


def locked(graph: Graph, stage: Stage, entry: Mapping[str, Any]) -> str:
    """The version of a stage as dvc.lock recorded it when it last ran.

    Only what dvc.yaml names today counts: DVC does not call a stage changed because a dependency was dropped.
    """
    params = entry.get("params", {}).get(PARAMS.as_posix(), {})
    hashes = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
    return _version(
        entry["cmd"],
        {key: params.get(key) for key in stage.params},
        {dep: hashes.get(dep) for dep in graph.code(stage)},
        output(entry)["path"],
    )


def output(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The output of a dvc.lock entry: {path, md5, size, ...}."""
    return entry["outs"][0]


def fingerprint(graph: Graph) -> str:
    """A hash over sizes and times of the files that staleness follows from: cheap to take, and it changes with them."""
    names = {DVC_YAML.as_posix(), DVC_LOCK.as_posix(), PARAMS.as_posix(), f"{DROPS}.dvc", REGISTRY}
    for stage in graph.stages.values():
        names |= {stage.out, f"{stage.out}/{RECORD}", *graph.code(stage)}
    states = {name: _state(graph.root / name) for name in sorted(names)}
    return canonical_hash(states)


def dvc_hash(path: Path) -> str | None:
    """The hash DVC gives a file or folder: MD5 of the bytes, or of the folder's list. None if there is nothing.

    Compiled Python files are left out, as .dvcignore tells DVC: they change whenever a stage is imported.
    """
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if not path.is_dir():
        return None
    files = sorted(
        (f.relative_to(path).as_posix(), f)
        for f in path.rglob("*")
        if f.is_file() and "__pycache__" not in f.parts and f.suffix not in (".pyc", ".pyo")
    )
    listing = [{"md5": dvc_hash(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _version(cmd: str, params: Mapping[str, Any], code: Mapping[str, str | None], out: str) -> str:
    return canonical_hash({"cmd": cmd, "params": dict(params), "code": dict(code), "out": out})[:32]


def _state(path: Path) -> list[Any]:
    """Size and time of a file, of every file of a small package, or of an output folder itself."""
    if not path.exists():
        return []
    files = sorted(path.rglob("*.py")) if path.is_dir() else []
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in (path, *files)]


def _expand(name: str, body: Mapping[str, Any], values: Mapping[str, Any], path: Path) -> Iterator[Stage]:
    where = f"{path}: {name}"
    unknown = set(body) - (LOOP_KEYS if "foreach" in body else STAGE_KEYS)
    if unknown:
        raise UserError(f"{where}: the key(s) {', '.join(sorted(unknown))} are not supported. Remove them.")
    if "foreach" in body:
        if not isinstance(body["foreach"], Mapping) or "do" not in body:
            raise UserError(f"{where}: `foreach` must be a mapping, with the stage below `do`.")
        for key, item in body["foreach"].items():
            filled = _fill(body["do"], {**values, "key": key, "item": item}, where)
            yield _stage(f"{name}@{key}", filled, where)
        return
    axes = body.get("matrix", {})
    for combination in itertools.product(*axes.values()):
        item = dict(zip(axes, combination, strict=True))
        suffix = f"@{'-'.join(map(str, combination))}" if item else ""
        rest = {key: value for key, value in body.items() if key != "matrix"}
        yield _stage(f"{name}{suffix}", _fill(rest, {**values, "item": item}, where), where)


def _stage(name: str, body: Mapping[str, Any], where: str) -> Stage:
    meta = body.get("meta", {})
    missing = META_KEYS - set(meta)
    if missing:
        raise UserError(f"{where}: meta lacks {', '.join(sorted(missing))}. Every stage is an asset and needs them.")
    plain = [v for key in ("deps", "params", "outs") for v in body.get(key, [])]
    if not all(isinstance(v, str) for v in plain) or len(body.get("outs", [])) != 1:
        raise UserError(f"{where}: deps, params and outs must be plain names, and outs exactly one folder.")
    return Stage(
        name=name, cmd=body["cmd"], deps=tuple(body.get("deps", [])), params=tuple(body.get("params", [])),
        out=body["outs"][0], description=body.get("desc", ""), asset=meta["asset"], group=meta["group"],
        kinds=tuple(meta["kinds"]), owner=meta["owner"], pool=meta.get("pool"),
    )  # fmt: skip


def _fill(node: Any, scope: Mapping[str, Any], where: str) -> Any:
    if isinstance(node, str):
        return _REFERENCE.sub(lambda match: str(_required(scope, match.group(1).strip(), where)), node)
    if isinstance(node, Mapping):
        return {key: _fill(value, scope, where) for key, value in node.items()}
    return [_fill(value, scope, where) for value in node] if isinstance(node, list) else node


def _required(scope: Mapping[str, Any], key: str, where: str) -> Any:
    value = _lookup(scope, key)
    if value is None:
        raise UserError(f"{where}: `${{{key}}}` is neither a matrix item nor a value of {PARAMS}.")
    return value


def _lookup(node: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _sorted_by_dependency(stages: Mapping[str, Stage]) -> list[Stage]:
    rest, done, order = dict(stages), set[str](), list[Stage]()
    outs = {stage.out for stage in stages.values()}
    while rest:
        ready = [s for s in rest.values() if all(dep in done for dep in s.deps if dep in outs)]
        if not ready:
            raise UserError(f"{DVC_YAML}: the stages {', '.join(rest)} depend on each other in a circle.")
        order += ready
        done |= {s.out for s in ready}
        rest = {name: s for name, s in rest.items() if s not in ready}
    return order


def _no_twins(stages: Mapping[str, Stage], path: Path) -> None:
    for attribute in ("asset", "out"):
        seen: dict[str, str] = {}
        for stage in stages.values():
            value = getattr(stage, attribute)
            if value in seen:
                raise UserError(f"{path}: {seen[value]} and {stage.name} have the same {attribute} `{value}`.")
            seen[value] = stage.name
    _sorted_by_dependency(stages)
