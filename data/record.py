"""Lineage records: what went into an output, what came out, and the checks it passed.

`record.json` lies in every output folder. It holds only what is the same whoever ran the stage, wherever and whenever:
its `id` is the SHA-256 of that body, so running a stage by hand, under DVC and under Dagster gives the same id, and a
stage that was re-run without effect leaves its output, and so everything downstream, untouched. What differs from run
to run (seconds, device, code commit, package versions) is kept per record id under `runs/records/`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data.params import UserError, canonical, canonical_hash

RECORD = "record.json"
RUN_FACTS = Path("runs/records")
VERSION = 1
PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "open_clip_torch",
    "pyarrow",
    "numpy",
    "great-expectations",
    "onnx",
    "onnxruntime",
    "tokenizers",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One lineage record; see the module text. `inputs` are {path, hash, record}, `outputs` {path, hash, bytes}."""

    kind: str
    stage: str
    command: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parameters: dict[str, Any]
    seeds: dict[str, int]
    summary: dict[str, Any]
    checks: list[dict[str, Any]]
    pictures: dict[str, str]
    tables: dict[str, list[dict[str, Any]]]
    version: int = VERSION

    @functools.cached_property
    def id(self) -> str:
        return canonical_hash(self)

    def to_json(self) -> str:
        return json.dumps({"id": self.id, **canonical(self)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read(folder: Path) -> Record:
    """The record of an output folder. Raises `UserError` if it is absent, unreadable or does not match its own id."""
    path = folder / RECORD
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found. Run the stage that makes {folder} (`dvc repro`).") from None
    except ValueError as error:
        raise UserError(f"{path}: not a record ({error}). Rebuild {folder} with `dvc repro -f`.") from None
    stated, record = parse(text, path)
    if record.id != stated:
        raise UserError(f"{path}: the content does not match its id {stated[:12]}; it was edited. Rebuild {folder}.")
    return record


def parse(text: str, path: Path) -> tuple[str, Record]:
    """(the id that a record.json states, its content). Raises `UserError` naming `path` if it is no record."""
    try:
        body = json.loads(text)
        stated = str(body.pop("id"))
        record = Record(**body)
        for item in (*record.inputs, *record.outputs):
            item["path"], item["hash"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a record ({error}). Rebuild {path.parent} with `dvc repro -f`.") from None
    return stated, record


def verify(folder: Path) -> Record:
    """`read`, and every output file hashed again. Raises `UserError` naming the first file that differs."""
    record = read(folder)
    for item in record.outputs:
        path = folder / item["path"]
        if not path.is_file():
            raise UserError(f"{path}: missing, but listed in {folder / RECORD}. Restore it with `dvc checkout`.")
        if hash_file(path) != item["hash"]:
            raise UserError(f"{path}: changed since {folder / RECORD} was written. Restore it with `dvc checkout`.")
    return record


def describe_input(path: Path) -> dict[str, Any]:
    """{path, hash, record}: what a record says of one input, a file or a folder."""
    record = read(path).id if (path / RECORD).is_file() else None
    return {"path": path.as_posix(), "hash": hash_path(path), "record": record}


def describe_outputs(folder: Path) -> list[dict[str, Any]]:
    """{path, hash, bytes} of every file below `folder` but the record itself, sorted by path."""
    return [
        {"path": file.relative_to(folder).as_posix(), "hash": hash_file(file), "bytes": file.stat().st_size}
        for file in files_below(folder)
        if file != folder / RECORD
    ]


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder as its sorted (relative path, file hash) pairs."""
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise UserError(f"{path}: not found. Run the stage that makes it (`dvc repro`), or `dvc checkout`.")
    return canonical_hash([[f.relative_to(path).as_posix(), hash_file(f)] for f in files_below(path)])


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted by relative path."""
    return sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.relative_to(folder).as_posix())


def listing(record: Record) -> list[list[str]]:
    """The (relative path, hash) pairs of a whole output folder, its record.json among them, sorted by path."""
    text_hash = hashlib.sha256(record.to_json().encode()).hexdigest()
    return sorted([[RECORD, text_hash], *([item["path"], item["hash"]] for item in record.outputs)])


def write_run_facts(record_id: str, facts: Mapping[str, Any]) -> None:
    """Keep what differs from run to run beside, not inside, the record."""
    write_atomically(RUN_FACTS / f"{record_id}.json", json.dumps(canonical(facts), indent=2) + "\n")


def run_facts(record_id: str, root: Path = Path()) -> dict[str, Any]:
    """The facts of the last run that produced this record here; empty if it came from elsewhere (`dvc pull`)."""
    path = root / RUN_FACTS / f"{record_id}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def machine_facts() -> dict[str, Any]:
    """Code commit, package versions and the machine's make-up: the part of the run facts known before the run."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "packages": _versions(PACKAGES),
    }


def write_atomically(path: Path, text: str) -> None:
    """Write a text file by rename, so that a reader sees the old or the new content and never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
