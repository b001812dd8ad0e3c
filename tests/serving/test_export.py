"""An export is complete, repeatable, and its golden answers are what the model and the index really give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from data import record
from data.params import UserError
from serving import export, golden, index
from serving.config import DATASET, ExportConfig
from serving.model_config import search_config
from tests.serving import tiny
from training.encoder import load_encoder

VERSION = Path("store/exports/clip/model/search/1")


def test_the_record_tells_what_was_compared_and_everything_critical_passed(home: Path) -> None:
    found = record.verify(home / "store/exports/clip")
    assert {c["name"]: (c["passed"], c["severity"]) for c in found.checks} == {
        "onnx_text_tower": (True, "critical"), "onnx_image_tower": (True, "critical"),
    }  # fmt: skip
    assert found.summary["model_record"] == tiny.model_of("clip")
    assert found.summary["products"] == 59


def test_exporting_again_gives_the_same_record(home: Path) -> None:
    before = record.read(Path("store/exports/clip")).id
    shutil.rmtree("runs/cache")
    assert export.main(["clip", "--force"]) == 0
    assert record.read(Path("store/exports/clip")).id == before


def test_nothing_of_the_exporting_machine_is_in_the_files(home: Path) -> None:
    root, code = str(home).encode(), str(Path(__file__).parents[2]).encode()
    for file in record.files_below(Path("store/exports/clip")):
        assert root not in file.read_bytes(), file
        assert code not in file.read_bytes(), file


def test_products_that_share_a_picture_are_one_row_under_the_lowest_id(home: Path) -> None:
    rows = index.products(DATASET)
    catalog = pq.read_table(DATASET / "products.parquet").to_pylist()
    twins = sorted(p["id"] for p in catalog if p["image_key"] == f"{1:032x}")
    assert len(twins) == 2
    assert [p.id for p in rows if p.id in twins] == twins[:1]
    assert [p.id for p in rows] == sorted(p.id for p in rows)


def test_a_product_without_a_title_is_called_by_colour_and_article(home: Path) -> None:
    untitled = next(p for p in pq.read_table(DATASET / "products.parquet").to_pylist() if p["title"] is None)
    found = next(p for p in index.products(DATASET) if p.id == untitled["id"])
    assert found.title == f"{untitled['base_colour']} {untitled['article_type']}"


def test_config_is_what_triton_reads(home: Path) -> None:
    config = text_format.Parse((VERSION.parent / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.backend == "python"
    assert {i.name: (i.data_type, list(i.dims), i.optional) for i in config.input} == {
        "text": (model_config_pb2.TYPE_STRING, [1], True), "image": (model_config_pb2.TYPE_STRING, [1], True),
        "k": (model_config_pb2.TYPE_INT32, [1], True),
    }  # fmt: skip
    assert {o.name for o in config.output} == {
        "ids", "titles", "scores", "match", "text_embedding", "image_embedding", "record",
    }  # fmt: skip
    assert config.parameters["model_record"].string_value == tiny.model_of("clip")
    assert config.dynamic_batching.max_queue_delay_microseconds == ExportConfig().queue_delay_us


def test_text_in_a_config_is_escaped() -> None:
    text = search_config(max_batch=4, queue_delay_us=0, parameters={"method": 'a "quoted" \\ name'})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.parameters["method"].string_value == 'a "quoted" \\ name'


def test_golden_answers_by_hand(home: Path) -> None:
    """Embeddings from the encoder, scores from plain numpy, order from sorting (score down, id up)."""
    encoder, cases = load_encoder(Path("store/models/clip")), golden.read(Path("store/exports/clip/golden"))
    embeddings, products = (
        np.load(VERSION / "embeddings.npy", allow_pickle=False),
        json.loads((VERSION / "products.json").read_text()),
    )
    assert len(cases) == len(golden.PHRASES) + 8 + 5 + 3
    for case in cases:
        given = [np.array(v) for v in (case.text_embedding, case.image_embedding) if v is not None]
        scores = embeddings @ np.mean(given, 0)
        order = sorted(range(len(scores)), key=lambda row: (-round(float(scores[row]), 6), products["id"][row]))[:10]
        assert [products["id"][row] for row in order] == case.ids
        assert case.scores == pytest.approx(scores[order], abs=1e-6)
        if case.text is not None:
            with torch.inference_mode():
                expected = encoder.encode_text(*encoder.tokenize([case.text]))[0].numpy()
            assert case.text_embedding == pytest.approx(expected, abs=1e-6)
        if case.text and case.image:
            assert case.match == pytest.approx(float(given[0] @ given[1]), abs=1e-6)


def test_a_tie_goes_to_the_lower_id(home: Path) -> None:
    rows = [index.Product(id=i, title=i, image_key=i) for i in ("1", "2", "3", "4")]
    encoder = load_encoder(Path("store/models/clip"))
    with torch.inference_mode():
        vector = encoder.encode_text(*encoder.tokenize(["red shoes"]))[0].numpy()
    embeddings = np.stack([-vector, vector, -vector, vector])
    assert golden.answer(encoder, rows, embeddings, 4, "tie", "red shoes", None).ids == ["2", "4", "1", "3"]


def test_the_towers_take_any_batch_and_length(home: Path) -> None:
    encoder = load_encoder(Path("store/models/clip"))
    text = onnxruntime.InferenceSession(str(VERSION / "text.onnx"))
    for texts in (["red"], ["a red shirt for men and women and kids"], ["red"] * 7 + ["black leather wallet"]):
        ids, mask = encoder.tokenize(texts)
        with torch.inference_mode():
            expected = encoder.encode_text(ids, mask).numpy()
        assert text.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0] == pytest.approx(expected, abs=1e-5)
    image = onnxruntime.InferenceSession(str(VERSION / "image.onnx"))
    assert image.run(None, {"pixels": np.zeros((5, 48, 36, 3), np.uint8)})[0].shape == (5, 24)


def test_a_model_that_was_changed_is_not_exported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("store/models/clip/weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert export.main(["clip", "--force"]) == 2
    assert "weights.safetensors: changed since" in capsys.readouterr().err


def test_a_method_without_endpoint_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["base"]) == 2
    assert "competes for no endpoint" in capsys.readouterr().err


def test_an_empty_test_split_is_refused(home: Path) -> None:
    train_and_val = pq.read_table(DATASET / "products.parquet", filters=[("split", "!=", "test")])
    pq.write_table(train_and_val, DATASET / "products.parquet")
    with pytest.raises(UserError, match="test split has no product with a text"):
        golden.inputs(DATASET, ExportConfig())


@pytest.mark.parametrize("name", ["golden_texts", "golden_images", "golden_pairs", "golden_k"])
def test_settings_that_would_check_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ExportConfig(**{name: 0})
