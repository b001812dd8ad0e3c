import os

import pytest

from data import record, stage
from data.params import UserError
from training import champion
from training.methods import METHODS


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two model folders in an empty workspace: their paths and record ids."""
    monkeypatch.chdir(tmp_path)
    return [write_model(tmp_path / "store/models" / name, name) for name in ("clip", "ce_clip")]


def write_model(folder, words):
    with stage.run(words, kind="model", command="-", out=folder, inputs=[], parameters={}) as run:
        (run.out / "weights.safetensors").write_text(words)
        (run.out / "sub").mkdir()
        (run.out / "sub/tokenizer.json").write_text("{}")
    return folder, record.read(folder).id


def test_no_champion_before_the_first_promotion(models):
    assert champion.current("search") is None
    champion.install("search", models[0][0])
    assert champion.current("search") is None  # installed, not pointed at


def test_promotion_and_return(models):
    (clip, clip_id), (ce_clip, ce_clip_id) = models
    champion.install("search", clip)
    champion.point("search", clip_id)
    champion.install("search", ce_clip)
    assert champion.current("search").model_record == clip_id
    champion.point("search", ce_clip_id)
    found = champion.current("search")
    assert (found.endpoint, found.model_record) == ("search", ce_clip_id)
    assert (found.folder / "weights.safetensors").read_text() == "ce_clip"
    champion.point("search", clip_id)
    assert champion.current("search").model_record == clip_id


def test_copy_is_linked_and_survives_retraining(models):
    clip, clip_id = models[0]
    kept = champion.install("search", clip).folder
    assert (kept / "weights.safetensors").samefile(clip / "weights.safetensors")
    assert (kept / "sub/tokenizer.json").is_file()
    write_model(clip, "another")  # the same output folder, trained again
    champion.point("search", clip_id)
    assert (champion.current("search").folder / "weights.safetensors").read_text() == "clip"


def test_links_the_file_behind_a_symbolic_link(models, tmp_path):
    """DVC can be told to put links to its cache into the workspace; the copy must not depend on the cache's paths."""
    clip, _ = models[0]
    cached = tmp_path / "cache"
    (clip / "weights.safetensors").rename(cached)
    (clip / "weights.safetensors").symlink_to(cached)
    kept = champion.install("search", clip).folder / "weights.safetensors"
    assert not kept.is_symlink()
    assert kept.samefile(cached)


def test_copies_where_links_are_impossible(models, monkeypatch):
    def refuse(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    clip, _ = models[0]
    kept = champion.install("search", clip).folder
    assert not (kept / "weights.safetensors").samefile(clip / "weights.safetensors")
    assert (kept / "weights.safetensors").read_text() == "clip"


def test_install_is_idempotent_and_repairs_a_damaged_copy(models):
    clip, clip_id = models[0]
    kept = champion.install("search", clip).folder
    before = kept.stat().st_ino
    assert champion.install("search", clip).folder.stat().st_ino == before
    (kept / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="missing"):
        champion.point("search", clip_id)
    champion.install("search", clip)
    assert champion.point("search", clip_id).model_record == clip_id


def test_damaged_model_is_not_installed(models):
    clip, _ = models[0]
    (clip / "weights.safetensors").write_text("tampered")
    with pytest.raises(UserError, match="changed since"):
        champion.install("search", clip)
    assert not list(champion.CHAMPIONS.rglob("weights*"))


def test_pointing_at_what_is_not_installed_changes_nothing(models):
    (clip, clip_id), (_, other) = models
    champion.install("search", clip)
    champion.point("search", clip_id)
    with pytest.raises(UserError, match="missing"):
        champion.point("search", other)
    assert champion.current("search").model_record == clip_id


@pytest.mark.parametrize("text", ["", "latest", "../../clip", "0" * 63, "G" * 64])
def test_pointer_that_is_no_record_id(models, text):
    champion.install("search", models[0][0])
    (champion.CHAMPIONS / "search/CURRENT").write_text(text)
    with pytest.raises(UserError, match="not a record id"):
        champion.current("search")


def test_folder_that_holds_another_model(models):
    (clip, clip_id), (ce_clip, _) = models
    kept = champion.install("search", clip).folder
    champion.point("search", clip_id)
    (kept / "record.json").unlink()
    (kept / "record.json").write_bytes((ce_clip / "record.json").read_bytes())
    with pytest.raises(UserError, match="holds model"):
        champion.current("search")


def test_who_competes_for_what():
    assert champion.endpoint_of("ce_clip") == champion.endpoint_of("clip") == "search"
    assert champion.endpoint_of("lincir") == "compose"
    assert champion.endpoint_of("cma_clip") == "attributes"
    with pytest.raises(UserError, match="competes for no endpoint"):
        champion.endpoint_of("base")
    with pytest.raises(UserError, match="no endpoint"):
        champion.current("compositional")


def test_every_method_competes_for_exactly_one_endpoint():
    methods = [method for found in champion.ENDPOINTS.values() for method in found]
    assert sorted(methods) == sorted(METHODS)
