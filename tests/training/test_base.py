"""The base stage: towers kept, heads aligned, a CLIP model in their place, and one error for each mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from tests.training import tiny
from tests.training.test_openclip import CLIP_CONFIG
from training import base
from training.encoder import load_encoder

OUT = Path("store/models/base")


def test_alignment_moves_only_heads_and_temperature(workspace: Path) -> None:
    fresh = base.packaged_encoder(base.section(base.BaseConfig, "{preset}.base"))
    aligned = load_encoder(OUT)
    for name, parameter in fresh.named_parameters():
        same = torch.equal(parameter, dict(aligned.named_parameters())[name])
        assert same == (".trunk." in name), name


def test_the_folder_and_its_record(workspace: Path) -> None:
    assert {p.name for p in OUT.iterdir()} == {
        "model.json", "weights.safetensors", "tokenizer.json", "metrics.jsonl", "loss.png", "record.json",
    }  # fmt: skip
    record = json.loads((OUT / "record.json").read_text(encoding="utf-8"))
    assert record["kind"] == "model"
    assert [i["path"] for i in record["inputs"]] == ["store/dataset"]
    assert {f"val_{d}_R@{k}" for d in ("t2i", "i2t") for k in (1, 5, 10)} < record["summary"].keys()


def test_alignment_is_reproducible_and_finds_plain_colours(workspace: Path) -> None:
    tiny.change_params(workspace, "starter.base.align", epochs=60, lr=1e-2)
    assert base.main([]) == 0
    first = (OUT / "weights.safetensors").read_bytes()
    history = [json.loads(line) for line in (OUT / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    shutil.rmtree("runs")  # without the feature cache
    assert base.main(["--force"]) == 0
    assert (OUT / "weights.safetensors").read_bytes() == first


def test_sentence_features_equal_the_trunk(workspace: Path) -> None:
    from training.source import Source, load_products
    from training.task import DATASET

    encoder = load_encoder(OUT)
    products = load_products(DATASET, "train")
    config = base.section(base.BaseConfig, "{preset}.base").align
    pictures = base.Features(encoder, DATASET, products.image_keys, "test")
    source = Source(products, encoder, pictures, config, base.Align.needs)
    made = base.sentence_features(encoder, source.texts)
    for place in (0, len(made) // 2, len(made) - 1):
        ids, mask = encoder.tokenize([source.texts.distinct[place]])
        with torch.no_grad():
            torch.testing.assert_close(made[place], encoder.text.trunk(ids, mask)[0], atol=1e-5, rtol=0)


def test_a_clip_model_becomes_the_base_as_it_is(workspace: Path) -> None:
    import open_clip

    name = "tiny-base-clip"
    Path(f"{name}.json").write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
    open_clip.add_model_config(Path(f"{name}.json"))
    model = open_clip.create_model(name)
    safetensors.torch.save_file(model.state_dict(), "clip.safetensors")
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params |= {
        "preset": "paper",
        "paper": {**params["starter"], "base": {"clip": {"model": name, "weights": "clip.safetensors"}}},
    }
    params["paper"]["trainer"] = {**params["paper"]["trainer"], "frozen": [], "epochs": 1}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert base.main([]) == 0
    assert not (OUT / "loss.png").exists()
    from training import train

    assert train.main(["ce_clip"]) == 0
    trained = load_encoder(Path("store/models/ce_clip"))
    assert trained.config.image.kind == trained.config.text.kind == "open_clip"
    assert not torch.equal(trained.image.trunk.patches.weight, load_encoder(OUT).image.trunk.patches.weight)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("base", {"embed_dims": 8}, "starter.base.embed_dims: unknown setting. Did you mean `embed_dim`?"),
        ("base.image", {"arch": "tf_efficientnet_lite1", "weights": "package"}, "the packaged weights are of"),
        ("base.image", {"weights": "nowhere.safetensors"}, "nowhere.safetensors: not readable as weights"),
        ("base.image", {"levels": [0], "grid": [3, 2, 2]}, "grid: level 3 is not among the pooled levels"),
        ("base.image", {"grid": [0, 5, 2]}, "does not divide"),
        ("base.text", {"weights": "store"}, "base.text.weights: store is not a BERT folder"),
        ("base.text", {"max_tokens": 99}, "max_tokens: 99 is more than the 32 positions"),
    ],
)
def test_one_clear_error_and_the_old_model_stays(
    workspace: Path, capsys: pytest.CaptureFixture[str], section: str, values: dict[str, object], words: str
) -> None:
    before = (OUT / "record.json").read_bytes()
    tiny.change_params(workspace, f"starter.{section}", **values)
    assert base.main([]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert (OUT / "record.json").read_bytes() == before
    assert not list(OUT.parent.glob(".*partial"))
