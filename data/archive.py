"""Where records are found: in the workspace, among what promotions kept, and in DVC's cache.

A record id names its content wherever that lies, so a link is followed by id and not by path: what `dvc repro` has
replaced since is still found in DVC's cache, and the records (without their files) beside each version that went live.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data import dvc
from data.params import UserError, canonical_hash
from data.record import RECORD, Record, files_below, listing, parse

STORE = Path("store")
DEPTH = 3  # store/champions/<endpoint>/<id>/record.json is the deepest
DIGITS = 12  # of a record id where people read it
STATED = re.compile(r'"id": "([0-9a-f]{64})"')
State = Literal["here", "cached", "kept"]


@dataclass(frozen=True, eq=False)
class Place:
    """One place where an output lies.

    Attributes:
        name: what people are shown, `store/models/ce_clip`.
        record_file: its record.json.
        files: path inside the output to file, without the record; None where only the record was kept.
        state: in the workspace, in DVC's cache, or kept by a promotion.
        record: its record; None if record.json cannot be read as one.
        stated: the id that record.json states.
        text: the bytes of record.json as text.
    """

    name: str
    record_file: Path
    files: Mapping[str, Path] | None
    state: State
    record: Record | None
    stated: str
    text: str

    @property
    def damaged(self) -> bool:
        """Whether record.json is no record, or not the one whose id it states."""
        return self.record is None or self.record.id != self.stated

    def path(self, name: str) -> Path | None:
        """The file at path `name` of the output, if it is at hand."""
        found = (self.files or {}).get(name)
        return found if found is not None and found.is_file() else None

    def child(self, name: str) -> str:
        """How a file of the output is shown; a cached one lies under the hash that DVC gave it."""
        file = (self.files or {}).get(name)
        return f"{file} ({name} of {self.name})" if self.state == "cached" and file else f"{self.name}/{name}"


@dataclass(frozen=True)
class Collection:
    """A folder of outputs that is an input as a whole (`store/drops`), as DVC's cache remembers it."""

    content: str  # as `record.hash_path` would hash it
    places: tuple[Place, ...]


class Archive:
    """Every record that is at hand. `kept` are folders that hold records as `<id>.json`."""

    def __init__(self, kept: Sequence[Path] = ()) -> None:
        self._kept = kept

    @functools.cached_property
    def here(self) -> list[Place]:
        """The outputs below `store/`, by path."""
        found = (p for depth in range(1, DEPTH + 1) for p in STORE.glob("*/" * depth + RECORD))
        return [_folder(path) for path in sorted(found) if not any(part[0] == "." for part in path.parts)]

    @functools.cached_property
    def kept(self) -> list[Place]:
        """The records that promotions kept."""
        paths = [path for folder in self._kept for path in sorted(folder.glob("*.json"))]
        return [_read(str(path), path, None, "kept") for path in paths]

    @functools.cached_property
    def cached(self) -> list[Place]:
        """The outputs that DVC's cache holds, of every revision."""
        return [place for collection in self.collections for place in collection.places]

    @functools.cached_property
    def collections(self) -> list[Collection]:
        """DVC's cached folders that hold one record, or several below it."""
        return [found for path in _cached_folders() if (found := _collection(path)).places]

    def find(self, record_id: str, output: str = "") -> list[Place]:
        """Where the output with a record id lies: in the workspace, else in DVC's cache, else only its record.

        A place whose record.json is damaged is among them if it states the id, or lies where the output should;
        `output` is that folder.
        """
        found = self._here.get(record_id, [])
        named = {output, record_id[:DIGITS]}  # a champion's folder has the first digits of its id
        damaged = [p for p in self.here if p.damaged and p not in found and named & {p.name, Path(p.name).name}]
        if any(place.record is not None and place.record.id == record_id for place in found):
            return [*found, *damaged]
        elsewhere = self._cached.get(record_id, []) or self._kept_records.get(record_id, [])
        return [*found, *damaged, *elsewhere]

    def at(self, folder: Path) -> Place:
        """The output in a folder. Raises `UserError` if it holds no record."""
        if not (folder / RECORD).is_file():
            raise UserError(f"{folder}: holds no {RECORD}. Name the folder of an output, for example store/dataset.")
        return _folder(folder / RECORD)

    def ids(self) -> Iterator[str]:
        """The record ids that are at hand."""
        for place in (*self.here, *self.kept, *self.cached):
            yield place.record.id if place.record else place.stated

    @functools.cached_property
    def _here(self) -> dict[str, list[Place]]:
        return _by_id(self.here)

    @functools.cached_property
    def _cached(self) -> dict[str, list[Place]]:
        return _by_id(self.cached)

    @functools.cached_property
    def _kept_records(self) -> dict[str, list[Place]]:
        return _by_id(self.kept)


def _by_id(places: list[Place]) -> dict[str, list[Place]]:
    """Places under the id that their content has, and under the one that they state, should it differ."""
    index: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        for record_id in {place.stated, place.record.id if place.record else place.stated}:
            index[record_id].append(place)
    return index


def _folder(path: Path) -> Place:
    folder = path.parent
    files = {f.relative_to(folder).as_posix(): f for f in files_below(folder) if f != path}
    return _read(folder.as_posix(), path, files, "here")


def _read(name: str, path: Path, files: Mapping[str, Path] | None, state: State) -> Place:
    text = path.read_bytes().decode(errors="replace")
    try:
        stated, record = parse(text, path)
    except UserError:
        found = STATED.search(text)
        stated, record = found[1] if found else "", None
    return Place(name, path, files, state, record, stated, text)


def _cached_folders() -> Iterator[Path]:
    if not Path(".dvc").is_dir():
        return
    try:
        cache = Path(dvc.call("cache", "dir").strip())
    except UserError:  # DVC is not installed here: there is no cache to look in
        return
    yield from sorted(cache.glob("files/md5/??/*.dir"))


def _collection(path: Path) -> Collection:
    """What a `.dir` object of DVC's cache says of its folder; without places if it holds no record."""
    objects = path.parents[1]
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())
        files = {e["relpath"]: objects / e["md5"][:2] / e["md5"][2:] for e in entries}
    except (ValueError, KeyError, TypeError):  # DVC reports a damaged object itself
        return Collection("", ())
    digest = f"DVC's cache {path.parent.name}{path.stem}"[: len("DVC's cache ") + 8]
    places, listed = [], []
    for name in sorted(files):
        if name.split("/")[-1] != RECORD or not files[name].is_file():
            continue
        prefix = name[: -len(RECORD)]
        own = {k[len(prefix) :]: v for k, v in files.items() if k.startswith(prefix) and k != name}
        place = _read(f"{digest}{f'/{prefix[:-1]}' if prefix else ''}", files[name], own, "cached")
        places.append(place)
        if place.record:
            listed += [[prefix + inner, content] for inner, content in listing(place.record)]
    return Collection(canonical_hash(sorted(listed)), tuple(places))
