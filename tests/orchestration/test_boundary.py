"""Landing through Dagster: the real command on a real small drop, its rules as checks, its mistakes in one sentence."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import workspace
from dagster._core.definitions.data_version import StaleStatus
from PIL import Image

from orchestration import boundary, stages
from serving import registry

HEADER = "id,image,productDisplayName,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage"
ROWS = (
    "1,1.jpg,Red Shirt,Men,Apparel,Topwear,Shirts,Red,Summer,2011,Casual",
    "2,2.jpg,Blue Shirt,Men,Apparel,Topwear,Shirts,Blue,Summer,2011,Casual",
    "3,missing.jpg,Green Shirt,Men,Apparel,Topwear,Shirts,Green,Summer,2011,Casual",
)


@pytest.fixture
def drop(toy: Path) -> Path:
    """A drop of three rows in the inbox, the last without its picture."""
    folder = toy / boundary.INBOX / "tuesday"
    (folder / "images").mkdir(parents=True)
    (folder / "catalog.csv").write_text("\n".join((HEADER, *ROWS)) + "\n", encoding="utf-8")
    for number, colour in ((1, "red"), (2, "blue")):
        buffer = io.BytesIO()
        Image.new("RGB", (60, 80), colour).save(buffer, "JPEG")
        (folder / "images" / f"{number}.jpg").write_bytes(buffer.getvalue())
    shutil.copy(workspace.REPOSITORY / "params.yaml", toy / "params.yaml")
    return folder


def _event(result: dg.ExecuteInProcessResult) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node("catalog__drops")
    return event  # type: ignore[return-value]


def test_landing_lands_what_waits_and_shows_its_rules(toy: Path, there: dg.DagsterInstance, drop: Path) -> None:
    result = workspace.materialize(toy, there, "catalog/drops")
    assert result.success
    metadata = _event(result).metadata
    assert metadata["accepted rows"].value == 2
    assert metadata["landed"].records[0].data["quarantined"] == 1  # type: ignore[union-attr]
    assert Path(str(metadata["data docs"].value)).is_file()
    found = {event.check_name: event for event in result.get_asset_check_evaluations()}
    assert not found["image_present"].passed
    assert found["image_present"].severity is dg.AssetCheckSeverity.ERROR
    assert found["image_present"].metadata["count"].value == 1
    assert found["image_present"].metadata["examples"].value == "3"
    assert found["id_unique"].passed
    assert (_event(result).tags or {})["dagster/data_version"] == stages.dvc_hash(toy / stages.DROPS)
    assert "catalog/drops" not in workspace.tell(toy, there)
    again = workspace.materialize(toy, there, "catalog/drops")  # lands nothing
    assert _event(again).metadata["record"].value == metadata["record"].value


def test_a_refused_drop_is_one_sentence(toy: Path, there: dg.DagsterInstance, drop: Path) -> None:
    (drop / "catalog.csv").write_text("id,colour\n1,red\n", encoding="utf-8")
    result = workspace.materialize(toy, there, "catalog/drops", config={"paths": [str(drop)]})
    assert not result.success
    (step,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = step.event_specific_data
    assert "tuesday" in data.user_failure_data.description
    assert "\n" not in data.user_failure_data.description


def _go_live(version: int, export: str) -> None:
    """What a promotion by command leaves in the registry."""
    facts = {"method": "ce_clip", "model_record": "m" * 64, "export_record": export}
    for state in ("exported", "staged", "checked", "live-pending", "live"):
        registry.append("search", version, state, **facts)


def test_a_promotion_by_command_shows_once_and_goes_stale_with_its_verdict(
    toy: Path, there: dg.DagsterInstance
) -> None:
    with (toy / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("promotion: {endpoints: {search: ce_clip}}\n")
    assert workspace.statuses(toy, there)["production/search"] is StaleStatus.MISSING
    _go_live(1, "e" * 64)
    assert workspace.tell(toy, there) == ["production/search"]
    assert workspace.tell(toy, there) == []
    assert workspace.statuses(toy, there)["production/search"] is StaleStatus.FRESH
    event = there.get_latest_materialization_event(dg.AssetKey(["production", "search"]))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["version"].value == 1
    assert event.asset_materialization.metadata["export_record"].value == "e" * 64
    workspace.edit(toy / "params.yaml", "margin: 0.1", "margin: 0.6")
    workspace.repro(toy)  # other verdicts
    assert "production/search" not in workspace.tell(toy, there)
    assert workspace.statuses(toy, there)["production/search"] is StaleStatus.STALE
    _go_live(2, "f" * 64)
    assert workspace.tell(toy, there) == ["production/search"]
    assert workspace.statuses(toy, there)["production/search"] is StaleStatus.FRESH


def test_a_promotion_that_is_refused_fails_with_the_reason(toy: Path, there: dg.DagsterInstance) -> None:
    shutil.copy(workspace.REPOSITORY / "params.yaml", toy / "params.yaml")
    result = workspace.materialize(toy, there, "production/search")
    assert not result.success
    (step,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = step.event_specific_data
    assert "ce_clip" in data.user_failure_data.description
    assert "\n" not in data.user_failure_data.description
