"""Records: what they say of a folder is what hashing the folder gives, and what is no record is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import record, stage
from data.params import UserError, canonical_hash


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    out = Path("store/thing")
    with stage.run("thing", kind="thing", command="python -m thing", out=out, inputs=[], parameters={"a": 1e-5}) as run:
        for name in ("b.txt", "a/deep.txt", "Z.txt"):
            (run.out / name).parent.mkdir(exist_ok=True)
            (run.out / name).write_text(name)
    return out


def test_the_listing_of_a_record_hashes_like_its_folder(folder: Path) -> None:
    """So a consumer's input hash can be checked against the record alone, when the files are gone."""
    assert canonical_hash(record.listing(record.read(folder))) == record.hash_path(folder)


def test_a_record_reads_back_as_it_was_written(folder: Path) -> None:
    text = (folder / record.RECORD).read_text()
    stated, found = record.parse(text, folder / record.RECORD)
    assert stated == found.id
    assert found.to_json() == text


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff\xfe", b'{"id": "x"}', b'{"id": "x", "kind": 1}', b"nonsense"],
)
def test_what_is_no_record_is_named(folder: Path, content: bytes) -> None:
    (folder / record.RECORD).write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json: not a record"):
        record.read(folder)


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_inputs_and_outputs_have_a_path_and_a_hash(folder: Path, key: str) -> None:
    text = (folder / record.RECORD).read_text()
    broken = text.replace(f'"{key}": [', f'"{key}": [{{}}' + (", " if key == "outputs" else ""))
    with pytest.raises(UserError, match="not a record"):
        record.parse(broken, folder / record.RECORD)


def test_an_edited_record_is_not_read(folder: Path) -> None:
    path = folder / record.RECORD
    path.write_text(path.read_text().replace('"kind": "thing"', '"kind": "thinh"'))
    with pytest.raises(UserError, match="does not match its id"):
        record.read(folder)
