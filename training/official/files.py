"""Annotation files: found under a configured folder, checked, read; never downloaded.

The folder is FITTINGROOM_BENCHMARKS, or `store/benchmarks`. Below it each benchmark has a folder of its name, and each
set of pictures one: `coco/{train2014,val2014,val2017,unlabeled2017}`, `vg`, `flickr30k`, `swig`, `visual7w`, `hake`, ….
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.params import UserError
from training.official.contract import File, Official

FOLDER = "FITTINGROOM_BENCHMARKS"


def root() -> Path:
    """The folder of all benchmarks."""
    return Path(os.environ.get(FOLDER) or "store/benchmarks")


def find(folder: Path, path: str) -> Path | None:
    """The file, or the same with `.gz`; None if neither is there."""
    return next((found for found in (folder / path, folder / f"{path}.gz") if found.is_file()), None)


def missing(benchmark: Official, folder: Path) -> list[str]:
    """Its needed files that are not in `folder`."""
    return [
        file.path
        for file in benchmark.files
        if file.needed and find(folder, file.path) is None and not (file.instead and find(folder, file.instead))
    ]


def check(benchmark: Official, folder: Path) -> dict[str, str]:
    """{path: sha256} of its files. Raises `UserError` if one is absent or is not the official one."""
    if absent := missing(benchmark, folder):
        raise UserError(
            f"{folder / absent[0]}: not found, so {benchmark.title} is not installed ({len(absent)} of "
            f"{len(benchmark.files)} files are missing). {benchmark.source} Put its files into {folder}."
        )
    return {file.path: _hash(folder, file, benchmark) for file in benchmark.files if find(folder, file.path)}


def _hash(folder: Path, file: File, benchmark: Official) -> str:
    found = find(folder, file.path)
    if file.sha256 is None and found is not None and found.suffix != ".gz":  # FashionGen's have many gigabytes
        with found.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    content = read(folder, file.path)
    digest = hashlib.sha256(content).hexdigest()
    if file.sha256 not in (None, digest, _compact(content)):
        raise UserError(
            f"{folder / file.path}: is not the official file of {benchmark.title} (sha256 {digest[:12]}, expected "
            f"{file.sha256[:12]}). {benchmark.source}"
        )
    return digest


def _compact(content: bytes) -> str:
    """The sha256 of JSON without its white space, which copies of one file differ in; of other content empty."""
    try:
        return hashlib.sha256(json.dumps(json.loads(content), separators=(",", ":")).encode()).hexdigest()
    except ValueError:
        return ""


def read(folder: Path, path: str) -> bytes:
    """A file's content, uncompressed. Raises `UserError`."""
    found = find(folder, path)
    if found is None:
        raise UserError(f"{folder / path}: not found.")
    try:
        content = found.read_bytes()
        return gzip.decompress(content) if found.suffix == ".gz" and not path.endswith(".gz") else content
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{found}: cannot be read ({error}). Fetch the file again.") from None


def read_json(folder: Path, path: str) -> Any:
    """A JSON file. Raises `UserError` naming the place of the mistake."""
    try:
        return json.loads(read(folder, path))
    except ValueError as error:
        raise UserError(f"{folder / path}: is not JSON ({error}). Fetch the file again.") from None


def read_json_lines(folder: Path, path: str) -> Iterator[tuple[int, Any]]:
    """(line number, entry) of each line that is not empty. Raises `UserError` naming the line."""
    for number, line in enumerate(read(folder, path).splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{folder / path}: line {number} is not JSON ({error}). Fetch the file again."
                ) from None


def field(entry: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`entry[name]`, of the given kind. Raises `UserError` naming entry and field."""
    if not isinstance(entry, dict) or name not in entry:
        raise UserError(f"{where}: field `{name}` is missing. Fetch the official file again.")
    value = entry[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in _kinds(kind)):
        raise UserError(f"{where}: field `{name}` is {type(value).__name__}, which the official files never have.")
    return value


def _kinds(kind: type | tuple[type, ...]) -> Sequence[type]:
    return kind if isinstance(kind, tuple) else (kind,)
