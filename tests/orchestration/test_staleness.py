"""DVC and Dagster name the same stale stages, whatever made them stale."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import workspace
from dagster._core.definitions.data_version import StaleStatus

from orchestration import definitions, stages
from orchestration.staleness import Staleness, stale

METHODS = ("clip", "ce_clip")


def by_dagster(root: Path, there: dg.DagsterInstance) -> Staleness:
    """The same three sets, from what the UI shows and Dagster's own graph."""
    graph, found = stages.read(root), workspace.statuses(root, there)
    assets = definitions.build(root).resolve_asset_graph()
    names = {stage.asset: stage.name for stage in graph.stages.values()}
    marked = {status: {names[a] for a, s in found.items() if s is status and a in names} for status in StaleStatus}
    roots = [key for key in assets.get_all_asset_keys() if found[key.to_user_string()] is not StaleStatus.FRESH]
    reached = {names[key.to_user_string()] for key in dg.AssetSelection.assets(*roots).downstream().resolve(assets)}
    missing, direct = marked[StaleStatus.MISSING], marked[StaleStatus.STALE]
    return Staleness(
        missing=_ordered(graph, missing), direct=dict.fromkeys(_ordered(graph, direct), ()),
        affected=_ordered(graph, reached - missing - direct),
    )  # fmt: skip


def _ordered(graph: stages.Graph, names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in graph.stages if name in names)


def assert_agree(root: Path, there: dg.DagsterInstance, direct: set[str], missing: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Both name exactly these stages, and the same stages downstream of them."""
    ours, dagsters = stale(root), by_dagster(root, there)
    assert set(ours.direct) == set(dagsters.direct) == direct
    assert set(ours.missing) == set(dagsters.missing) == missing
    assert ours.affected == dagsters.affected


def _learning_rate(root: Path) -> None:
    workspace.edit(root / "params.yaml", "lr: 0.003", "lr: 0.004")


def _tiny_learning_rate(root: Path) -> None:
    workspace.edit(root / "params.yaml", "lr: 0.00001", "lr: 2e-5")


def _code(root: Path) -> None:
    workspace.edit(root / "judge.py", "margin < 0.5", "margin < 0.4")


def _command(root: Path) -> None:
    workspace.edit(root / "dvc.yaml", "cmd: python toy.py base", "cmd: python -B toy.py base")


def _new_dependency(root: Path) -> None:
    workspace.edit(root / "dvc.yaml", "deps: [store/dataset, toy.py]", "deps: [store/dataset, toy.py, judge.py]")


def _dropped_dependency(root: Path) -> None:
    workspace.edit(root / "dvc.yaml", "toy.py, judge.py]", "toy.py]")


def _description(root: Path) -> None:
    workspace.edit(root / "dvc.yaml", "desc: Accepted drops merged and split.", "desc: Other words.")


def _deleted_output(root: Path) -> None:
    shutil.rmtree(root / "store/models/base")


def _edited_output(root: Path) -> None:
    path = root / "store/models/clip/output.txt"
    path.unlink()  # DVC's outputs are links into its cache, which must stay as it is
    path.write_text("edited by hand", encoding="utf-8")


def _rerun_by_hand(root: Path) -> None:
    _tiny_learning_rate(root)
    workspace.repro(root, "--single-item", "base")


def _new_method(root: Path) -> None:
    workspace.edit(
        root / "dvc.yaml",
        "[clip, ce_clip]}\n    cmd: python toy.py ${",
        "[clip, ce_clip, base2]}\n    cmd: python toy.py ${",
    )


def _new_drop(root: Path) -> None:
    (root / "store/drops/def").mkdir()
    (root / "store/drops/def/products.txt").write_text("another product\n", encoding="utf-8")
    workspace.dvc.call("add", "-q", "store/drops", cwd=root)


TRAIN = {f"train@{method}" for method in METHODS}
GATE = {f"gate@{method}" for method in METHODS}


@pytest.mark.parametrize(
    ("change", "direct", "missing"),
    [
        (_learning_rate, {"train@ce_clip"}, set()),
        (_tiny_learning_rate, {"base"}, set()),
        (_code, GATE, set()),
        (_command, {"base"}, set()),
        (_new_dependency, {"base"}, set()),
        (_dropped_dependency, set(), set()),
        (_description, set(), set()),
        (_deleted_output, {"base"} | TRAIN, set()),
        (_edited_output, {"train@clip", "gate@clip"}, set()),
        (_rerun_by_hand, TRAIN, set()),
        (_new_method, set(), {"train@base2"}),
        (_new_drop, {"dataset"}, set()),
    ],
)
def test_dvc_and_dagster_agree(
    toy: Path, there: dg.DagsterInstance, change: Callable[[Path], None], direct: set[str], missing: set[str]
) -> None:
    change(toy)
    workspace.tell(toy, there)
    assert_agree(toy, there, direct, missing)


def test_a_changed_learning_rate_shows_without_anybody_telling_dagster(toy: Path, there: dg.DagsterInstance) -> None:
    assert_agree(toy, there, set())
    _learning_rate(toy)
    assert_agree(toy, there, {"train@ce_clip"})
    found = stale(toy)
    assert found.direct["train@ce_clip"] == ("params.yaml starter.ce_clip modified",)
    assert found.affected == ("gate@ce_clip",)
    workspace.edit(toy / "params.yaml", "lr: 0.004", "lr: 0.003")
    assert_agree(toy, there, set())


def test_materializing_what_is_stale_leaves_nothing_stale(toy: Path, there: dg.DagsterInstance) -> None:
    _learning_rate(toy)
    assert workspace.materialize(toy, there, "models/ce_clip").success
    assert_agree(toy, there, {"gate@ce_clip"})  # its input now has another hash
    assert workspace.materialize(toy, there, "verdicts/ce_clip").success
    assert_agree(toy, there, set())
    assert workspace.tell(toy, there) == []


def test_a_stage_re_run_to_the_same_output_leaves_what_follows_fresh(toy: Path, there: dg.DagsterInstance) -> None:
    assert workspace.materialize(toy, there, "catalog/dataset", config={"force": True}).success
    assert_agree(toy, there, set())


def test_the_command_prints_the_same(toy: Path) -> None:
    assert "every stage is up to date" in workspace.fittingroom(toy, "stale").stdout
    _learning_rate(toy)
    printed = workspace.fittingroom(toy, "stale").stdout
    assert "train@ce_clip" in printed
    assert "starter.ce_clip modified" in printed
    assert "gate@ce_clip" in printed
    assert "train@clip" not in printed
