"""The chain behind an output: its records followed down to the drops, every hash on the way computed again.

A record names its inputs by id and content hash, so the ids form a chain: who has the id of a model can tell whether
the dataset, the drops and every file on the way are still the ones it was made from. `walk` follows the records,
`verify` reads the files; each thing that does not fit is one `Break` that names the file, the link and the cure.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import stage
from data.archive import DIGITS, Archive, Place
from data.params import canonical_hash
from data.record import RECORD, Record, hash_path, listing, run_facts

THREADS = min(8, os.cpu_count() or 1)
GROWING_BYTES = 10_000_000  # a larger input is not looked at line by line


@dataclass(frozen=True, kw_only=True)
class Break:
    """One thing that does not fit: the link of the chain, the file, what is wrong with it, and what to do."""

    link: str
    file: str
    problem: str
    cure: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        hashes = ""
        if self.expected and self.found:
            hashes = f" (expected {self.expected[:DIGITS]}, found {self.found[:DIGITS]})"
        return f"{self.link}: {self.file} {self.problem}{hashes}. {self.cure}"


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """A file (or folder) whose content must have the hash `expected`; `shown` is its name for people."""

    path: Path
    shown: str
    expected: str
    link: str
    cure: str


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a record: its path when it was used, and the records that lie there; none for a plain file."""

    path: str
    records: tuple[str, ...] = ()
    note: str = ""


@dataclass(kw_only=True)
class Node:
    """One record of a chain.

    Attributes:
        id, kind, record: as in its record.json; the record is None where it cannot be read.
        places: where the output lies.
        inputs: what it was made from.
        breaks: what does not fit here.
        absent: why its files cannot be checked, and the cure; None where they can.
    """

    id: str
    kind: str
    record: Record | None
    places: list[Place]
    inputs: list[Input] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    absent: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.id[:DIGITS]}"

    @property
    def place(self) -> Place | None:
        """Where its files can be read."""
        return next((place for place in self.places if place.files is not None and place.record is not None), None)


@dataclass
class Chain:
    """The records behind an output by id, each before what it was made from, and how much of them was read again."""

    nodes: dict[str, Node] = field(default_factory=dict)
    checks: list[FileCheck] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)  # of what is no record: a promotion's files and lines
    files: int = 0
    bytes: int = 0

    @property
    def all_breaks(self) -> list[Break]:
        return [*self.breaks, *(found for node in self.nodes.values() for found in node.breaks)]

    @property
    def absent(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.absent]

    @property
    def whole(self) -> bool:
        """Whether every link was checked and fits."""
        return not self.all_breaks and not self.absent

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.kind == kind]

    def below(self, record_id: str) -> Iterator[Node]:
        """A node and everything that it was made from, each once."""
        todo, seen = [record_id], set[str]()
        while todo:
            node = self.nodes.get(todo.pop())
            if node and node.id not in seen:
                seen.add(node.id)
                yield node
                todo += [record for item in reversed(node.inputs) for record in reversed(item.records)]


def walk(archive: Archive, record_id: str, output: str = "", chain: Chain | None = None) -> Chain:
    """Follow the record `record_id` down to the drops; `output` is where it should lie, if that is known."""
    chain = Chain() if chain is None else chain
    if record_id in chain.nodes:
        return chain
    places = archive.find(record_id, output)
    record = next((p.record for p in places if p.record is not None and p.record.id == record_id), None)
    damaged = next((p.record for p in places if p.record is not None), None)
    kind = record.kind if record else damaged.kind if damaged else Path(output).name or "record"
    node = chain.nodes[record_id] = Node(id=record_id, kind=kind, record=record, places=places)
    for place in places:
        node.breaks += _record_breaks(place, node)
    if not any(place.files is not None for place in places):
        node.absent = _absent(node, output)
    for item in record.inputs if record else ():
        node.inputs.append(_follow(archive, chain, node, item))
    return chain


def verify(chain: Chain, label: str = "trace") -> Chain:
    """Hash every file of a chain again, each once however many names it has, and add what does not fit."""
    jobs: list[tuple[FileCheck, Node | None]] = [(check, None) for check in chain.checks]
    for node in chain.nodes.values():
        for place in node.places:
            jobs += [(check, node) for check in _file_checks(place, node)]
    hashes, read = _hash_all([check.path for check, _ in jobs], label)
    chain.files, chain.bytes = len(jobs), read
    for check, owner in jobs:
        found = hashes[check.path]
        if isinstance(found, OSError):
            problem, shown = f"cannot be read ({found.strerror or found})", None
        elif found != check.expected:
            problem, shown = "was changed", found
        else:
            continue
        (owner.breaks if owner else chain.breaks).append(
            Break(link=check.link, file=check.shown, problem=problem, expected=check.expected, found=shown,
                  cure=check.cure)
        )  # fmt: skip
    return chain


def cure(place: Place) -> str:
    """How the files of a place are brought back."""
    stage_name = place.record.stage if place.record else ""
    again = f"`dvc repro -f -s {stage_name}`" if stage_name else "`dvc repro -f`"
    if place.state == "cached":
        return f"Remove it from the cache and fetch it again (`dvc fetch --all-commits`), or make it again ({again})."
    if place.state == "kept":
        return "Promote the model again."
    parts = Path(place.name).parts
    if parts[:2] == ("store", "drops"):
        return "Restore it (`dvc checkout --force store/drops.dvc`), or `fittingroom land --force` the drop."
    if parts[:2] == ("store", "champions"):
        return "Restore it (`dvc checkout --force store/champions.dvc`), or promote the model again."
    return f"Restore it (`dvc checkout --force {place.name}`), or make it again ({again})."


def landed(place: Place) -> int:
    """The number of a drop in the order of landing; drops whose report cannot be read come last."""
    report = place.path("report.json")
    try:
        return int(json.loads(report.read_text(encoding="utf-8"))["landed"]) if report else 1 << 60
    except (ValueError, KeyError, TypeError):
        return 1 << 60


def _record_breaks(place: Place, node: Node) -> Iterator[Break]:
    """What is wrong with a record.json itself."""
    shown = str(place.record_file)
    if place.record is None:
        yield Break(link=node.name, file=shown, problem="is not a record any more", cure=cure(place))
    elif place.record.id != place.stated:
        yield Break(link=node.name, file=shown, problem="was edited: its content does not have the id that it states",
                    expected=place.stated, found=place.record.id, cure=cure(place))  # fmt: skip
    elif place.text != place.record.to_json():
        yield Break(link=node.name, file=shown, problem="is not written as it was: spaces or order differ",
                    cure=cure(place))  # fmt: skip


def _file_checks(place: Place, node: Node) -> Iterator[FileCheck]:
    """The files of a place that are to be hashed; those that are missing or not listed become breaks at once."""
    if place.files is None or place.record is None or place.record.id != node.id:
        return
    listed = {item["path"]: item["hash"] for item in place.record.outputs}
    for name, expected in listed.items():
        shown, found = place.child(name), place.path(name)
        if found:
            yield FileCheck(path=found, shown=shown, expected=expected, link=node.name, cure=cure(place))
        else:
            node.breaks.append(Break(link=node.name, file=shown, problem="is missing", cure=cure(place)))
    for name in sorted(set(place.files) - set(listed)):
        node.breaks.append(
            Break(link=node.name, file=place.child(name), problem=f"is not listed in {RECORD}: it was added later",
                  cure=f"Move it away. {cure(place)}")
        )  # fmt: skip


def _follow(archive: Archive, chain: Chain, node: Node, item: dict[str, Any]) -> Input:
    """One input of a record: the records at its other end are walked, and its content hash compared with theirs."""
    path, expected, record_id = item["path"], item["hash"], item.get("record")
    link = f"{node.name} <- {path}"
    if record_id is None:
        return _follow_plain(archive, chain, link, path, expected)
    walk(archive, record_id, path, chain)
    child = chain.nodes[record_id]
    found = canonical_hash(listing(child.record)) if child.record else expected
    if found != expected:
        again = f"Make it again (`dvc repro -f -s {node.record.stage if node.record else ''}`)."
        chain.breaks.append(
            Break(link=link, file=path, problem="is not the content that was used", expected=expected, found=found,
                  cure=again)
        )  # fmt: skip
    where = {place.name for place in child.places}
    note = "" if path in where or not where else f"now in {', '.join(sorted(where))}"
    return Input(path=path, records=(record_id,), note=note)


def _follow_plain(archive: Archive, chain: Chain, link: str, path: str, expected: str) -> Input:
    """An input without a record of its own: a folder of outputs such as store/drops, or a plain file or folder."""
    members = sorted((p for p in archive.here if p.name.startswith(f"{path}/")), key=lambda p: (landed(p), p.name))
    if not members:
        return _follow_file(chain, link, path, expected)
    damaged = any(place.damaged for place in members)
    used, note = _state_used(archive, members, path, expected)
    if used is None and not damaged:
        chain.breaks.append(
            Break(link=link, file=path, problem="is not what was used, and DVC's cache has no such state",
                  expected=expected, found=_content(members, path),
                  cure=f"Restore it (`dvc checkout --force {path}.dvc`), or make what follows again (`dvc repro`).")
        )  # fmt: skip
    records = []
    for place in used or members:
        record_id = place.stated or place.name
        walk(archive, record_id, place.name, chain)
        records.append(record_id)
    return Input(path=path, records=tuple(records), note=note)


def _state_used(
    archive: Archive, members: list[Place], path: str, expected: str
) -> tuple[Sequence[Place] | None, str]:  # fmt: skip
    """The outputs that made up a folder with content `expected`: those landed first, or a state in DVC's cache."""
    for count in range(len(members), 0, -1):
        if _content(members[:count], path) == expected:
            later = len(members) - count
            return members[:count], f"{later} landed since" if later else ""
    cached = next((found for found in archive.collections if found.content == expected), None)
    return (cached.places, "as it was then, from DVC's cache") if cached else (None, "")


def _follow_file(chain: Chain, link: str, path: str, expected: str) -> Input:
    back = f"Restore it (`git checkout` or `dvc checkout {path}`), or make what follows again (`dvc repro`)."
    added = _lines_added(Path(path), expected)
    if added:
        return Input(path=path, note=f"lines added since: {added}")
    if Path(path).exists():
        chain.checks.append(FileCheck(path=Path(path), shown=path, expected=expected, link=link, cure=back))
    else:
        chain.breaks.append(Break(link=link, file=path, problem="is missing", cure=back))
    return Input(path=path)


def _lines_added(path: Path, expected: str) -> int:
    """How many lines a small file, such as people's labels, has gained since its hash was `expected`; else 0."""
    if not path.is_file() or path.stat().st_size > GROWING_BYTES:
        return 0
    digest, lines = hashlib.sha256(), path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        digest.update(line)
        if digest.hexdigest() == expected:
            return len(lines) - number
    return 0


def _content(places: Iterable[Place], path: str) -> str:
    """What `record.hash_path` gives for a folder that holds exactly these outputs."""
    listed = []
    for place in places:
        prefix = place.name[len(path) + 1 :]
        listed += [[f"{prefix}/{name}", digest] for name, digest in listing(place.record)] if place.record else []
    return canonical_hash(sorted(listed))


def _absent(node: Node, output: str) -> str:
    kept = "its record was kept, its files are" if node.record else "it is"
    fetch = f" {output}" if output else ""
    commit = run_facts(node.id).get("commit")
    since = f" `git log {commit[:DIGITS]}.. -- dvc.lock` lists the revisions that name it." if commit else ""
    return (
        f"{kept} neither in the workspace nor in DVC's cache. `dvc fetch --all-commits{fetch}` brings it from the "
        f"remote, if one has it.{since}"
    )


def _hash_all(paths: Sequence[Path], label: str) -> tuple[dict[Path, str | OSError], int]:
    """({path: its hash, or why it cannot be read}, bytes read). A file with several names is read once."""
    same: dict[tuple[int, int], list[Path]] = {}
    for path in dict.fromkeys(paths):
        found = path.stat()
        same.setdefault((found.st_dev, found.st_ino), []).append(path)
    with ThreadPoolExecutor(THREADS) as pool:
        futures: list[Future[str | OSError]] = [pool.submit(_hash, names[0]) for names in same.values()]
        done = stage.progress(futures, total=len(futures), what="files", label=label)
        results = [future.result() for future in done]
    size = sum(names[0].stat().st_size for names in same.values())
    return {path: found for names, found in zip(same.values(), results, strict=True) for path in names}, size


def _hash(path: Path) -> str | OSError:
    try:
        return hash_path(path)
    except OSError as error:
        return error
