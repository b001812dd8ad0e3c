"""The Triton model repository: write version folders and config.pbtxt atomically, never overwrite a version.

An export brings one version folder and a config.pbtxt without name or version policy. Installed, the version folder is
exactly the exported bytes plus that config as `template.pbtxt`, so that a version keeps the inputs and outputs it was
made for; the model's config.pbtxt is the template of its newest loaded version, the policy that names the loaded
versions, and the record of the export. (The record cannot be in the exported file: a file cannot contain its own hash.)
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from data import record
from data.params import UserError, canonical_hash
from data.record import Record, write_atomically
from serving import registry
from serving.config import CANDIDATE, GOLDEN, LINEAGE, REPOSITORY, SERVING
from serving.model_config import CONFIG, parameter

TEMPLATE = "template.pbtxt"
COMPILED = shutil.ignore_patterns("__pycache__")


def version_folder(model: str, version: int) -> Path:
    """Where one version of a model lies in the repository."""
    return REPOSITORY / model / str(version)


def next_version(endpoint: str) -> int:
    """The next integer that no version has had under the live name of `endpoint`, whatever became of it."""
    used = [entry["version"] for entry in registry.history(endpoint) if entry["to"] == "live-pending"]
    return max([0, *used, *(int(p.name) for p in (REPOSITORY / endpoint).glob("*") if p.name.isdecimal())]) + 1


def install(export: Path, made: Record, model: str, version: int) -> str:
    """Copy an export's version folder to `model`/`version`. Returns the content hash of the installed folder.

    The copy is hashed against the export's record before it gets its name. Raises `UserError` if a file differs from
    the record or the version exists.
    """
    target = version_folder(model, version)
    if target.exists():
        raise UserError(f"{target}: exists. A version is never overwritten; promote again, it takes the next number.")
    source = _exported_model(export)
    with _staging() as partial:
        shutil.copytree(source / "1", partial / "1")
        shutil.copyfile(source / CONFIG, partial / "1" / TEMPLATE)
        for file in record.files_below(partial / "1"):
            name = source / CONFIG if file.name == TEMPLATE else source / "1" / file.relative_to(partial / "1")
            _check(file, name.relative_to(export).as_posix(), made, export)
        found = _hash(partial / "1")
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / "1").rename(target)
    return found


def adopt(endpoint: str, version: int, expected: str) -> None:
    """Copy a checked candidate to its place under the live name; `expected` is the content hash that was checked.

    Does nothing if it is there already. Raises `UserError` if the bytes are not the checked ones.
    """
    source, target = version_folder(f"{endpoint}{CANDIDATE}", version), version_folder(endpoint, version)
    if not target.exists():
        if not source.is_dir():
            raise UserError(f"{source}: the checked candidate is gone. Promote its export again.")
        with _staging() as partial:
            shutil.copytree(source, partial / "copy", ignore=COMPILED)
            target.parent.mkdir(parents=True, exist_ok=True)
            (partial / "copy").rename(target)
    demand_unchanged(endpoint, version, expected)


def demand_unchanged(endpoint: str, version: int, expected: str) -> None:
    """Raise `UserError` unless a version folder still holds the bytes that were checked."""
    folder = version_folder(endpoint, version)
    if _hash(folder) != expected:
        raise UserError(f"{folder}: is not what was checked before it went live. Promote its export again.")


def install_golden(export: Path, endpoint: str, version: int) -> Path:
    """Keep the golden answers of a version beside the repository: a rollback needs them after the next export."""
    target = GOLDEN / endpoint / str(version)
    with _staging() as partial:
        shutil.copytree(export / "golden", partial / "golden")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / "golden").rename(target)
    return target


def write_config(model: str, versions: Sequence[int], *, export_record: str) -> None:
    """Write the model's config.pbtxt so that a load brings up exactly `versions`; the last one gives the template.

    Raises `UserError` if that version is not in the repository.
    """
    path = version_folder(model, versions[-1]) / TEMPLATE
    if not path.is_file():
        raise UserError(f"{path}: missing, so version {versions[-1]} cannot be served. Promote its export again.")
    template = path.read_text(encoding="utf-8")
    listed = ", ".join(map(str, sorted(versions)))
    policy = f"version_policy {{ specific {{ versions: [ {listed} ] }} }}\n"
    write_atomically(REPOSITORY / model / CONFIG, template + parameter("export_record", export_record) + policy)


def remove_candidate(endpoint: str) -> None:
    """Forget the candidate of an endpoint (unload it first)."""
    shutil.rmtree(REPOSITORY / f"{endpoint}{CANDIDATE}", ignore_errors=True)


def remove_version(endpoint: str, version: int) -> None:
    """Delete what was kept of a version that never went live."""
    shutil.rmtree(version_folder(endpoint, version), ignore_errors=True)
    shutil.rmtree(GOLDEN / endpoint / str(version), ignore_errors=True)
    shutil.rmtree(LINEAGE / endpoint / str(version), ignore_errors=True)


def _exported_model(export: Path) -> Path:
    """The one model folder of an export; its name is the endpoint."""
    return next(path for path in sorted((export / "model").iterdir()) if (path / CONFIG).is_file())


def _hash(folder: Path) -> str:
    """Content hash of a version folder, without what Triton's Python compiles into it."""
    files = [file for file in record.files_below(folder) if "__pycache__" not in file.parts]
    return canonical_hash([[file.relative_to(folder).as_posix(), record.hash_file(file)] for file in files])


def _check(file: Path, name: str, made: Record, export: Path) -> None:
    expected = {item["path"]: item["hash"] for item in made.outputs}
    if record.hash_file(file) != expected.get(name):
        raise UserError(f"{export / name}: not the file that {export / record.RECORD} describes. Export it again.")


@contextlib.contextmanager
def _staging() -> Iterator[Path]:
    """A folder on the same file system, outside the repository, where Triton never sees half a version."""
    SERVING.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SERVING, prefix=".staging-") as name:
        yield Path(name)
