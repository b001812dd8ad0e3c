"""A workspace of its own for a test: a git and DVC repository with the toy stages, already run once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from data import dvc
from orchestration import definitions, sync, up

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

PARAMS = """\
preset: starter
starter:
  dataset: {share: 0.1}
  base: {lr: 0.00001}  # DVC writes 1e-05 into its lock, which YAML 1.1 reads as text
  clip: {lr: 0.002}
  ce_clip: {lr: 0.003}
  gate: {margin: 0.1}
"""
DVC_YAML = """\
stages:
  dataset:
    cmd: python toy.py dataset
    deps: [store/drops, toy.py]
    params: ["${preset}.dataset"]
    outs: [store/dataset]
    desc: Accepted drops merged and split.
    meta: {asset: catalog/dataset, group: catalog, kinds: [python, parquet], owner: catalog}
  base:
    cmd: python toy.py base
    deps: [store/dataset, toy.py]
    params: ["${preset}.base"]
    outs: [store/models/base]
    desc: The model that every method starts from.
    meta: {asset: models/base, group: models, kinds: [pytorch], owner: training, pool: gpu}
  train:
    matrix: {method: [clip, ce_clip]}
    cmd: python toy.py ${item.method}
    deps: [store/dataset, store/models/base, toy.py]
    params: [preset, "${preset}.${item.method}"]
    outs: ["store/models/${item.method}"]
    desc: "Trains ${item.method} from the base model."
    meta: {asset: "models/${item.method}", group: models, kinds: [pytorch], owner: training, pool: gpu}
  gate:
    matrix: {method: [clip, ce_clip]}
    cmd: python toy.py gate-${item.method}
    deps: ["store/models/${item.method}", toy.py, judge.py]
    params: ["${preset}.gate"]
    outs: ["store/verdicts/${item.method}"]
    desc: "Judges ${item.method}."
    meta: {asset: "verdicts/${item.method}", group: verdicts, kinds: [python], owner: evaluation}
"""


def create(root: Path) -> Path:
    """A new workspace with one landed drop, every stage run by `dvc repro`."""
    root.mkdir(parents=True)
    for name in ("toy.py", "judge.py"):
        shutil.copy(HERE / name, root / name)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / "store/drops/abc").mkdir(parents=True)
    (root / "store/drops/abc/products.txt").write_text("one product\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc.call("init", "-q", cwd=root)
    (root / ".dvcignore").write_text((REPOSITORY / ".dvcignore").read_text(encoding="utf-8"), encoding="utf-8")
    dvc.call("add", "-q", "store/drops", cwd=root)
    repro(root)
    return root


def repro(root: Path, *arguments: str) -> None:
    """`dvc repro`, as a person would."""
    subprocess.run(
        dvc.command("repro", "-q", *arguments), cwd=root, check=True, capture_output=True, env=environment()
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**dvc.environment(), "PYTHONPATH": str(REPOSITORY)}


def edit(path: Path, old: str, new: str) -> None:
    """Replace one passage of a text file, which must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def instance(root: Path) -> dg.DagsterInstance:
    """The Dagster instance of `fittingroom up` in this workspace."""
    return dg.DagsterInstance.from_config(str(up.write_home(root)))


def tell(root: Path, there: dg.DagsterInstance) -> list[str]:
    """What `fittingroom up` and the sensor do."""
    return sync.sync(there, root, sync.declared_checks(definitions.build(root).resolve_asset_graph()))


def materialize(
    root: Path, there: dg.DagsterInstance, *assets: str, config: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize assets in this process, through the real `dvc repro`."""
    job = definitions.build(root).resolve_implicit_global_asset_job_def()
    ops = {asset.replace("/", "__"): {"config": config} for asset in assets} if config else {}
    return job.execute_in_process(
        instance=there, raise_on_error=False, run_config={"ops": ops},
        asset_selection=[dg.AssetKey(asset.split("/")) for asset in assets],
    )  # fmt: skip


def statuses(root: Path, there: dg.DagsterInstance) -> dict[str, StaleStatus]:
    """{asset: status} by the resolver that the UI's GraphQL asks, over definitions loaded now."""
    graph = definitions.build(root).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(there, graph, LoadingContextForTest(there))
    return {key.to_user_string(): resolver.get_status(key) for key in graph.get_all_asset_keys()}


def fittingroom(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "orchestration", *arguments], cwd=root, env={**os.environ, **environment()},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
