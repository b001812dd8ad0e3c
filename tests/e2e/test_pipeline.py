"""One journey through the real system: land, rebuild, judge, promote, ask, a second drop, a change of one value.

The tests of this module build on each other, in order, because each is the next thing an operator does.
"""

from __future__ import annotations

import json
import re

import pytest
import yaml
from small_catalog import Workspace, tree

from data import record
from training.champion import ENDPOINTS
from training.methods import METHODS

pytestmark = pytest.mark.timeout(1200)  # seven methods are trained on the way, on whatever machine this is


def test_demo_goes_the_whole_way(workspace: Workspace) -> None:
    drop = workspace.drop("first", start=0, count=400)

    done = workspace.fittingroom("demo", str(drop))

    told = done.stdout
    assert "400 accepted" in told, told[-3000:] + done.stderr[-3000:]
    cell = r"\s+\d+\.\d \(\d+\.\d-\d+\.\d\)"  # a value with its interval, in percent
    for endpoint, methods in ENDPOINTS.items():
        table = told.split(f"{endpoint} %")[1].split("verdict")[0]
        for name in ("base", *methods):
            assert re.search(rf"{name}\s*{cell}", table), f"{name} at {endpoint}"
    for method in METHODS:
        assert re.search(rf"verdict\s+{method}: (pass|fail|inconclusive)", told)


def test_records_chain_from_drop_to_export(workspace: Workspace) -> None:
    (drop,) = (workspace.root / "store/drops").glob("*/record.json")
    folders = [
        drop.parent, *(workspace.root / "store" / name for name in (
            "dataset", "negatives", "suites", "models/base", "models/ce_clip", "evaluations/ce_clip",
            "verdicts/ce_clip", "exports/ce_clip",
        )),
    ]  # fmt: skip
    verified = {folder.relative_to(workspace.root).as_posix(): record.verify(folder) for folder in folders}

    for path, found in verified.items():
        for item in found.inputs:
            if item["path"] in verified:
                assert item["record"] == verified[item["path"]].id, f"{path} was made from another {item['path']}"
    verdict = workspace.read("store/verdicts/ce_clip/verdict.json")
    assert verdict["model_record"] == verified["store/models/ce_clip"].id
    assert verdict["champion"]["model_record"] == verified["store/models/base"].id


def test_promotion_needs_a_passing_verdict_or_a_reason(workspace: Workspace) -> None:
    judged = workspace.read("store/verdicts/ce_clip/verdict.json")["verdict"]
    before = workspace.json("status")["endpoints"]["search"]
    if judged != "pass":
        assert before["live_version"] is None
        refused = workspace.fittingroom("promote", "ce_clip")
        assert refused.returncode == 2
        assert judged in refused.stderr
        done = workspace.fittingroom("promote", "ce_clip", "--reason", "a few hundred products decide nothing")
        assert done.returncode == 0, done.stderr

    live = workspace.json("status")["endpoints"]["search"]

    assert live["live_version"] is not None
    assert live["method"] == "ce_clip"
    assert live["model_record"] == record.read(workspace.root / "store/models/ce_clip").id
    assert live["ready"]


def test_live_model_answers_with_products_of_the_catalog(workspace: Workspace) -> None:
    answer = workspace.json("ask", "black shoes for men", "--k", "4")

    hits = answer["hits"]
    assert answer["record"] == record.read(workspace.root / "store/models/ce_clip").id
    assert len(hits) == 4
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(hit["title"] for hit in hits)
    assert list((workspace.root / "runs/serving/ask").glob("black-shoes-for-men*.png"))


def test_live_answer_is_traced_to_the_lines_of_the_drop(workspace: Workspace) -> None:
    answer = workspace.json("ask", "black shoes for men", "--k", "4")
    (workspace.root / "answer.json").write_text(json.dumps(answer), encoding="utf-8")

    traced = workspace.json("trace", "answer.json")

    assert traced["whole"], traced["breaks"]
    kinds = {"export", "model", "negatives", "dataset", "drop"}
    if workspace.read("store/verdicts/ce_clip/verdict.json")["verdict"] == "pass":
        kinds.add("verdict")  # else a reason let it go live
    assert {found["kind"] for found in traced["records"]} >= kinds
    assert {hit["id"] for hit in answer["hits"]} == {row["id"] for row in traced["rows"]["shown"]}
    assert all(row["drop"] == "first" and row["row"] >= 2 for row in traced["rows"]["shown"])
    found = workspace.json("impact", answer["hits"][0]["id"])
    (version,) = found["versions"]
    assert (version["endpoint"], version["version"]) == ("search", answer["version"])


def test_second_run_does_nothing(workspace: Workspace) -> None:
    before = tree(workspace.root / "store")
    status = workspace.run("dvc", "status", "--json")
    assert status.stdout.strip() == "{}", status.stdout

    done = workspace.fittingroom("demo", "inbox/first")

    assert "already landed" in done.stderr
    assert "didn't change, skipping" in done.stdout + done.stderr
    assert "live at search already" in done.stderr
    assert tree(workspace.root / "store") == before


def test_one_learning_rate_makes_one_training_stale(workspace: Workspace) -> None:
    path = workspace.root / "params.yaml"
    kept = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(kept)
    settings["starter"]["methods"]["ce_clip"]["alpha"] = 0.123
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    try:
        stale = workspace.json("stale")
        named = set(yaml.safe_load(workspace.run("dvc", "status", "--json").stdout))
    finally:
        path.write_text(kept, encoding="utf-8")

    assert set(stale["direct"]) == named == {"train@ce_clip"}
    assert set(stale["affected"]) == {"evaluate@ce_clip", "gate@ce_clip", "export@ce_clip"}
    assert not stale["missing"]


def test_refused_drop_changes_nothing(workspace: Workspace) -> None:
    broken = workspace.root / workspace.drop("broken", start=400, count=30)
    shard = next(broken.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-200])
    before = tree(workspace.root / "store")

    done = workspace.fittingroom("land", "inbox/broken")

    assert done.returncode == 2
    assert shard.name in done.stderr
    assert tree(workspace.root / "store") == before


def test_second_drop_retrains_and_is_judged_against_the_champion(workspace: Workspace) -> None:
    champion = workspace.json("status")["endpoints"]["search"]["model_record"]
    drop = workspace.drop("second", start=430, count=120)

    assert workspace.fittingroom("land", str(drop)).returncode == 0
    workspace.repro("gate@ce_clip", "export@ce_clip")

    assert workspace.read("store/dataset/record.json")["summary"]["products"] == 520
    verdict = workspace.read("store/verdicts/ce_clip/verdict.json")
    assert verdict["champion"] == {"kind": "champion", "model_record": champion}
    assert verdict["model_record"] != champion
    assert workspace.json("status")["endpoints"]["search"]["model_record"] == champion


def test_a_champion_of_the_first_drop_is_still_traced(workspace: Workspace) -> None:
    """Its dataset, negatives and evaluations have been replaced; DVC's cache holds them."""
    traced = workspace.json("trace", "search")

    assert traced["whole"], traced["breaks"]
    states = {found["kind"]: found["places"][0]["state"] for found in traced["records"]}
    assert (states["dataset"], states["negatives"], states["drop"]) == ("cached", "cached", "here")
    assert 300 < traced["rows"]["total"] <= 400
