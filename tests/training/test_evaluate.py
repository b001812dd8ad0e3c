"""The evaluate and gate stages, run as a person runs them on a small workspace with real files and tiny models."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from data import record
from tests.training.builders import write_suites, write_workspace
from training import champion, evaluate, gate
from training.outcomes import SCHEMA, cells, column


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """base and clip, evaluated."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_workspace(root)
        assert evaluate.main(["base"]) == 0
        assert evaluate.main(["clip"]) == 0
    return root


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def test_evaluation_is_complete(inside):
    folder = inside / "store/evaluations/clip"
    made = record.verify(folder)
    assert {item["path"] for item in made.inputs} == {"store/dataset", "store/suites", "store/models/clip"}
    outcomes = pq.read_table(folder / "outcomes.parquet")
    assert outcomes.schema.equals(SCHEMA)
    metrics = json.loads((folder / "metrics.json").read_text())
    for (benchmark, metric), cell in cells(outcomes).items():
        found = metrics[benchmark][metric]
        assert found["value"] == pytest.approx(column(cell, "outcome").mean(), abs=1e-6)
        assert found["low"] <= found["value"] <= found["high"]
        assert found["n"] == cell.num_rows == 24
    assert {"accuracy/attribute", "accuracy/object", "blind_accuracy"} < set(metrics["compositional"])
    assert made.summary["catalog_retrieval/t2i_R@10"] == metrics["catalog_retrieval"]["t2i_R@10"]["value"]
    for picture in made.pictures.values():
        with Image.open(folder / picture) as image:
            assert min(image.size) > 200


def test_second_run_has_nothing_to_do(inside, capsys):
    before = (inside / "store/evaluations/clip/record.json").stat().st_mtime_ns
    assert evaluate.main(["clip"]) == 0
    assert "up to date" in capsys.readouterr().err
    assert (inside / "store/evaluations/clip/record.json").stat().st_mtime_ns == before


def test_forced_run_gives_the_same_record(inside):
    before = record.read(inside / "store/evaluations/clip").id
    assert evaluate.main(["clip", "--force"]) == 0
    assert record.read(inside / "store/evaluations/clip").id == before


def test_unknown_model_and_missing_suite_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    assert evaluate.main(["clip2"]) == 2
    assert "store/models/clip2" in capsys.readouterr().err
    (tmp_path / "store/suites/retrieval.parquet").unlink()
    assert evaluate.main(["clip"]) == 2
    assert "store/suites/retrieval.parquet: not found" in capsys.readouterr().err
    assert not (tmp_path / "store/evaluations").exists() or not list((tmp_path / "store/evaluations").iterdir())


def test_model_with_nan_weights_fails_and_has_no_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    weights = tmp_path / "store/models/clip/weights.safetensors"
    state = safetensors.torch.load_file(weights)
    name = next(key for key in state if key.startswith("image.head") and key.endswith("weight"))
    state[name][0, 0] = torch.nan
    safetensors.torch.save_file(state, weights)
    assert evaluate.main(["clip"]) == 2
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "store/evaluations/clip").exists()


def test_gate_against_base(inside):
    assert gate.main(["clip"]) == 0
    folder = inside / "store/verdicts/clip"
    made, verdict = record.verify(folder), json.loads((folder / "verdict.json").read_text())
    base_record, clip_record = (record.read(inside / "store/models" / name).id for name in ("base", "clip"))
    assert verdict["model_record"] == clip_record
    assert verdict["champion"] == {"kind": "base", "model_record": base_record}
    assert verdict["suites_record"] == record.read(inside / "store/suites").id
    assert (verdict["method"], verdict["endpoint"]) == ("clip", "search")
    assert verdict["verdict"] in ("fail", "inconclusive")  # random models on 24 items prove nothing
    assert [(b["name"], b["metric"]) for b in verdict["benchmarks"]] == [
        ("compositional", "accuracy"),
        ("catalog_retrieval", "t2i_R@10"),
        ("catalog_retrieval", "i2t_R@10"),
    ]
    checks = {check["name"]: check for check in made.checks}
    assert len(checks) == 4
    assert checks["verdict"]["severity"] == "critical"
    assert not checks["verdict"]["passed"]
    _assert_page_tells_all(folder, verdict)


def _assert_page_tells_all(folder, verdict):
    page = (folder / "verdict.md").read_text()
    assert verdict["reason"] in page
    assert verdict["model_record"] in page
    for picture in ("intervals.png", "changed.png"):
        assert f"({picture})" in page
        assert (folder / picture).is_file()
    changed = (folder / "changed_sides.csv").read_text().splitlines()
    assert len(changed) - 1 == sum(b["gained"] + b["lost"] for b in verdict["benchmarks"])


def test_gate_on_other_suites_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    for name in ("base", "clip"):
        assert evaluate.main([name]) == 0
    from data import stage

    with stage.run(
        "suites", kind="suites", command="-", out=tmp_path / "store/suites", inputs=[], parameters={"x": 1}
    ) as run:
        write_suites(run.out, 30)
    assert gate.main(["clip"]) == 2
    assert "made with suites" in capsys.readouterr().err
    assert not (tmp_path / "store/verdicts/clip").exists()


def test_gate_after_a_promotion(tmp_path, monkeypatch, capsys):
    """The promoted model is the next opponent, from its kept copy, though another model was trained since."""
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    for name in ("base", "clip"):
        assert evaluate.main([name]) == 0
    promoted = champion.install("search", tmp_path / "store/models/clip")
    champion.point("search", promoted.model_record)
    assert gate.main(["clip"]) == 0
    verdict = json.loads((tmp_path / "store/verdicts/clip/verdict.json").read_text())
    assert verdict["verdict"] == "inconclusive"
    assert verdict["needs_more_items"] is None
    assert "already the champion" in verdict["reason"]

    old = pq.read_table("store/evaluations/clip/outcomes.parquet")
    from tests.serving import tiny

    tiny.write_model(tmp_path / "store/models/clip", seed=5)
    assert evaluate.main(["clip"]) == 0
    capsys.readouterr()
    assert gate.main(["clip"]) == 0
    assert "scoring it now" in capsys.readouterr().err
    verdict = json.loads((tmp_path / "store/verdicts/clip/verdict.json").read_text())
    assert verdict["champion"] == {"kind": "champion", "model_record": promoted.model_record}
    cached = list((tmp_path / "runs/cache/evaluations").iterdir())
    assert len(cached) == 1
    assert np.array_equal(column(pq.read_table(cached[0]), "outcome"), column(old, "outcome"))
    cached[0].write_bytes(cached[0].read_bytes()[:100])  # a full disk cut it off
    assert gate.main(["clip", "--force"]) == 0
    assert "scoring it now" in capsys.readouterr().err
    assert gate.main(["clip", "--force"]) == 0
    assert "scoring it now" not in capsys.readouterr().err


def test_edited_evaluation_is_not_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    for name in ("base", "clip"):
        assert evaluate.main([name]) == 0
    path = tmp_path / "store/evaluations/clip/outcomes.parquet"
    table = pq.read_table(path)
    ones = np.ones(table.num_rows)
    pq.write_table(table.set_column(table.column_names.index("outcome"), "outcome", [ones]), path)
    assert gate.main(["clip"]) == 2
    assert "changed since" in capsys.readouterr().err


def test_gate_for_a_model_that_competes_for_nothing(inside, capsys):
    assert gate.main(["base"]) == 2
    assert "competes for no endpoint" in capsys.readouterr().err
