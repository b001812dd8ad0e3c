"""The evaluate and gate stages, run as a person runs them on a small workspace with real files and tiny models."""

import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from data import record
from tests.serving import tiny
from tests.training.builders import MODELS, write_suites, write_workspace
from training import champion, evaluate, examiner, gate, methods
from training.benchmarks.attributes import recalls
from training.encoder import load_encoder
from training.outcomes import SCHEMA, cells, column

SEARCH = {"compositional", "catalog_retrieval", "category", "robustness_search"}
COMPOSE, ATTRIBUTES = {"composed_retrieval", "robustness_compose"}, {"attributes", "robustness_attributes"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """base and a model of each endpoint, evaluated."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_workspace(root, models=MODELS)
        for name in MODELS:
            assert evaluate.main([name]) == 0
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
        assert found["n"] == cell.num_rows == (12 if benchmark == "category" else 24)
    assert {"accuracy/attribute", "accuracy/object", "blind_accuracy"} < set(metrics["compositional"])
    assert made.summary["catalog_retrieval/t2i_R@10"] == metrics["catalog_retrieval"]["t2i_R@10"]["value"]
    for picture in made.pictures.values():
        with Image.open(folder / picture) as image:
            assert min(image.size) > 200


@pytest.mark.parametrize(
    ("model", "benchmarks"),
    [
        ("base", SEARCH | COMPOSE | ATTRIBUTES),
        ("clip", SEARCH),
        ("lincir", COMPOSE),
        ("cma_clip", ATTRIBUTES),
    ],
)
def test_a_model_sits_the_exams_of_its_endpoint(inside, model, benchmarks):
    folder = inside / "store/evaluations" / model
    made = record.verify(folder)
    assert set(json.loads((folder / "metrics.json").read_text())) == benchmarks
    assert {f"{name}.png" for name in benchmarks} | {"metrics.png"} == set(made.pictures.values())
    assert set(evaluate.exams(model)) == benchmarks


def test_reported_recall_at_precision_is_that_of_the_stored_outcomes(inside):
    folder = inside / "store/evaluations/cma_clip"
    metrics = json.loads((folder / "metrics.json").read_text())["attributes"]
    found = recalls(pq.read_table(folder / "outcomes.parquet"))
    assert {"recall_at_90_precision", "recall_at_90_precision/gender"} <= set(found)
    assert found == {name: metrics[name] for name in found}


def test_a_method_answers_by_itself_where_it_can(inside, monkeypatch):
    """A folder with a method.json is loaded as that method; what the method lacks is answered from its encoder."""
    folder = inside / "store/models/lincir"
    plain = examiner.Examiner(folder, inside / "store/dataset")

    class Composing(torch.nn.Module):
        encoder = load_encoder(folder)

        def compose(self, images, keys, conditions):
            assert images == inside / "store/dataset/images.parquet"
            return np.tile(np.eye(1, 8, dtype=np.float32), (len(keys), 1))

    monkeypatch.setattr(methods, "load_task", lambda path: Composing() if path == folder else None)
    asked = (["p0", "p2"], ["in red", "for men"])
    assert not np.allclose(plain.compose(*asked)[:, 0], 1)
    (folder / "method.json").write_text("{}")
    try:
        own = examiner.Examiner(folder, inside / "store/dataset")
    finally:
        (folder / "method.json").unlink()
    assert own.compose(*asked)[:, 0].tolist() == [1, 1]
    assert np.allclose(own.images(["p0"]), plain.images(["p0"]), atol=1e-5)
    ours, theirs = (e.attributes(["p0"], ["red shirt"])["gender"] for e in (own, plain))
    assert ours[0] == theirs[0]
    assert np.allclose(ours[1], theirs[1], atol=1e-5)


def test_a_plain_encoder_needs_no_method(inside, monkeypatch):
    """Scoring it must not depend on any method's file: the stage that evaluates it does not name them."""
    for name in [name for name in sys.modules if name.startswith("training.methods")]:
        monkeypatch.delitem(sys.modules, name)
    assert examiner.Examiner(inside / "store/models/base", inside / "store/dataset").texts(["red shirt"]).any()
    assert not [name for name in sys.modules if name.startswith("training.methods")]


def test_a_catalog_without_items_for_one_endpoint_serves_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path, models=("base", "lincir"))
    suite = tmp_path / "store/suites/composed.parquet"
    pq.write_table(pq.read_table(suite).slice(0, 0), suite)
    assert evaluate.main(["base"]) == 0
    assert "composed_retrieval: the suite has no items" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "store/evaluations/base/metrics.json").read_text())
    assert set(metrics) == SEARCH | ATTRIBUTES
    assert evaluate.main(["lincir"]) == 2
    assert "composed.parquet: no items" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("method", "endpoint", "compared"),
    [("lincir", "compose", ("composed_retrieval", "R@10")), ("cma_clip", "attributes", ("attributes", "accuracy"))],
)
def test_gate_of_the_other_endpoints(inside, method, endpoint, compared):
    """Against base, on the benchmarks of the endpoint alone; another endpoint's champion is nobody's opponent."""
    promoted = champion.install("search", inside / "store/models/clip")
    champion.point("search", promoted.model_record)
    try:
        assert gate.main([method]) == 0
    finally:
        shutil.rmtree(inside / "store/champions")
    folder = inside / "store/verdicts" / method
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["endpoint"] == endpoint
    assert verdict["champion"] == {"kind": "base", "model_record": record.read(inside / "store/models/base").id}
    assert [(b["name"], b["metric"]) for b in verdict["benchmarks"]] == [compared]
    assert verdict["gate"]["primary"] == compared[0]
    page = (folder / "verdict.md").read_text()
    assert "text-only" not in page  # there is no such control here
    assert ("a guess of the commonest class gets wrong" in page) is (method == "cma_clip")
    _assert_page_tells_all(folder, verdict)
    header, first = (folder / "changed_sides.csv").read_text().splitlines()[:2]
    assert header.endswith("asked,right,wrong")
    assert {"lincir": "the same, ", "cma_clip": ": "}[method] in first


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
    tiny.write_model(tmp_path / "store/models/clip", seed=5)
    assert evaluate.main(["clip"]) == 0
    capsys.readouterr()
    assert gate.main(["clip"]) == 0
    assert "scoring it now" in capsys.readouterr().err
    verdict = json.loads((tmp_path / "store/verdicts/clip/verdict.json").read_text())
    assert verdict["champion"] == {"kind": "champion", "model_record": promoted.model_record}
    cached = list((tmp_path / "runs/cache/evaluations").glob("*.parquet"))
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
