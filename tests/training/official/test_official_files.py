"""Annotation files: found, checked by hash, never taken for something else; and every source is told."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from data.params import UserError
from training.benchmarks.winoground import BENCHMARKS
from training.official import MODULES, OFFICIAL, files
from training.official.contract import File, Official

CONTENT = b'{"a": [1, 2],\n "b": "caf\\u00e9"}\n'


def benchmark(*declared: File) -> Official:
    return dataclasses.replace(BENCHMARKS["winoground"], files=declared)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_hash_is_of_the_uncompressed_content(tmp_path: Path) -> None:
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(CONTENT))
    assert files.check(benchmark(File("x.json", digest(CONTENT))), tmp_path) == {"x.json": digest(CONTENT)}


def test_white_space_of_json_does_not_matter(tmp_path: Path) -> None:
    """The copies of VALSE in circulation differ in it."""
    (tmp_path / "x.json").write_bytes(CONTENT)
    compact = json.dumps(json.loads(CONTENT), separators=(",", ":")).encode()
    files.check(benchmark(File("x.json", digest(compact))), tmp_path)
    (tmp_path / "x.json").write_bytes(CONTENT.replace(b"2", b"3"))
    with pytest.raises(UserError, match=r"x\.json: is not the official file of Winoground"):
        files.check(benchmark(File("x.json", digest(compact))), tmp_path)


def test_what_is_missing_says_where_to_get_it(tmp_path: Path) -> None:
    asked = benchmark(
        File("x.json"), File("y.json"), File("extra.json", needed=False), File("z.json", instead="x.json")
    )
    (tmp_path / "x.json").write_bytes(CONTENT)
    assert files.missing(asked, tmp_path) == ["y.json"]
    with pytest.raises(UserError, match=r"y\.json: not found, so Winoground is not installed .* facebook/winoground"):
        files.check(asked, tmp_path)
    (tmp_path / "y.json").write_bytes(b"{")
    assert set(files.check(asked, tmp_path)) == {"x.json", "y.json"}
    with pytest.raises(UserError, match=r"y\.json: is not JSON"):
        files.read_json(tmp_path, "y.json")


def test_cut_off_archives_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(CONTENT * 50)[:40])
    with pytest.raises(UserError, match=r"x\.json\.gz: cannot be read"):
        files.read(tmp_path, "x.json")


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_tells_its_source_and_pictures(name: str) -> None:
    found = OFFICIAL[name]
    assert found.files
    assert any(file.needed for file in found.files)
    assert len(found.source) > 20
    assert found.title
    assert found.ability
    assert len({file.path for file in found.files}) == len(found.files)
    for file in found.files:
        assert file.sha256 is None or len(file.sha256) == 64
        assert not Path(file.path).is_absolute()
