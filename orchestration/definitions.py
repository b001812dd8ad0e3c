"""What `dagster` loads: the assets of this workspace's dvc.yaml, the two ends of the pipeline, sensors and resources.

The workspace is the current folder, or `FITTINGROOM_WORKSPACE`. Nothing heavy may be imported here: every Dagster
process and every run loads this module.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg

from orchestration import automation, boundary, dvc_assets, stages
from orchestration.resources import Workspace

warnings.filterwarnings("ignore", category=dg.PreviewWarning, module="dagster")  # said at every step, of its own inside


def build(root: Path) -> dg.Definitions:
    """The definitions of one workspace. Raises `UserError` if its dvc.yaml or params.yaml is not right."""
    graph = stages.read(root)
    return dg.Definitions(
        assets=[*dvc_assets.build(graph), *boundary.build(graph)],
        sensors=automation.build(graph),
        resources={"here": Workspace(root=str(root))},
        # A step only waits for `dvc repro`, which runs the stage in a process of its own, and every run has a process
        # of its own too; a further process per step would cost a second and isolate nothing.
        executor=dg.in_process_executor,
    )


defs = build(stages.workspace())
