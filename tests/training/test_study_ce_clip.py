"""The CE-CLIP study: the same budget and towers for every arm, and exams that mean what they say."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from training.encoder import load_encoder
from training.methods import METHODS
from training.studies import ce_clip as study
from training.task import BASE


@pytest.fixture
def small(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TRAINER", dataclasses.replace(study.TRAINER, epochs=2, batch=8, threads=1, warmup=2))
    for cached in (study.all_features, study.picture_features):
        cached.cache_clear()


def test_every_arm_takes_as_many_steps_of_as_many_pairs(small: None) -> None:
    budgets = set()
    for method, settings in study.METHOD.values():
        task = METHODS[method](METHODS[method].Config(**settings), load_encoder(BASE))
        source = task.source(study.settings_of(method, 0), "test")
        (batch,) = source.batches(0)
        pairs = len(batch["image"]) + len(batch.get("hard_image", ()))
        budgets.add((source.steps, pairs))
        source.close()
    assert budgets == {(8, 8)}


@pytest.mark.parametrize("arm", list(study.METHOD))
def test_an_arm_trains_its_heads_and_nothing_else(small: None, arm: str) -> None:
    before = load_encoder(BASE).state_dict()
    after = study.train(arm, 0, load_encoder(BASE)).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".head." in name or name == "logit_scale" for name in changed)


def test_shared_features_are_the_text_trunks(small: None) -> None:
    encoder = load_encoder(BASE)
    places, features = study.all_features()
    text = next(iter(places))
    with torch.no_grad():
        own = encoder.text.trunk(*encoder.tokenize([text]))[0]
    torch.testing.assert_close(features[places[text]], own, atol=0.05, rtol=0)  # bf16


def test_statements_pair_a_true_with_a_false_picture(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two true and one false picture of one sentence are two items of one unit; one without a false one is none."""
    rows = [("a", "red bags", "true"), ("b", "red bags", "true"), ("c", "red bags", "false"), ("d", "blue", "true")]
    lines = "\n".join(json.dumps({"id": i, "sentence": s, "label": v}) for i, s, v in rows)
    (tmp_path / "nlvr-dev.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pictures = []
    for shade in (250, 250, 10, 90):
        stream = io.BytesIO()
        Image.new("RGB", (40, 10), (shade, 0, 0)).save(stream, "PNG")
        pictures.append(stream.getvalue())
    pq.write_table(pa.table({"id": [i for i, _, _ in rows], "image": pictures}), tmp_path / "nlvr-dev.parquet")
    monkeypatch.setattr(study, "NLVR", tmp_path)
    found = study.statements(load_encoder(BASE)).to_pylist()
    assert [row["item_id"] for row in found] == ["a c", "b c"]
    assert len({row["unit"] for row in found}) == 1
    assert found[0]["outcome"] == found[1]["outcome"] == float(found[0]["detail"] > 0)  # a and b are one picture
