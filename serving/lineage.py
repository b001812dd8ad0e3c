"""The chain behind a served answer: promotion, export, model, verdict, and from there data/lineage.py down to the rows.

Each promotion keeps, beside the version's golden answers, every record of its chain and the membership of its dataset:

    runs/serving/lineage/<endpoint>/<version>/records/<id>.json, rows.parquet

So a version that went live can be traced, and asked whether it contains a product, when its dataset has long been
replaced. The files of those records come from the workspace or DVC's cache while these have them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data import membership, record
from data.archive import DIGITS, Archive
from data.lineage import Break, Chain, FileCheck, Node, walk
from data.params import UserError, canonical_hash
from serving import registry, repository
from serving.config import EXPORTS, GOLDEN, LINEAGE, REPOSITORY, VERDICTS
from serving.model_config import CONFIG, parameter
from training.champion import CHAMPIONS, CURRENT

RECORDS, ROWS = "records", "rows.parquet"
FACTS = (*registry.CARRIED, "lineage", "who", "time")
POLICY = re.compile(r"version_policy \{ specific \{ versions: \[ ([0-9, ]+) \] \} \}\n\Z")


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of an endpoint that went live: `alias` is champion or previous, else `state` says what became of it.

    `facts` are those of its history: method, record ids, who promoted it and when.
    """

    endpoint: str
    version: int
    alias: str | None
    state: str
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.endpoint} version {self.version}"

    @property
    def kept(self) -> Path:
        return LINEAGE / self.endpoint / str(self.version)


def archive() -> Archive:
    """Every record at hand, those that promotions kept among them."""
    return Archive([folder / RECORDS for folder in sorted(LINEAGE.glob("*/*"))])


def keep(endpoint: str, version: int, export_record: str, verdict_record: str | None) -> dict[str, Any]:
    """Keep the records and rows behind a version, and say what was kept: how many records, and the hash of the rows.

    What is not at hand is left out; a trace says so.
    """
    target = LINEAGE / endpoint / str(version)
    shutil.rmtree(target, ignore_errors=True)
    chain, source = Chain(), Archive()
    for record_id in filter(None, (export_record, verdict_record)):
        walk(source, record_id, "", chain)
    records = [node.record for node in chain.nodes.values() if node.record is not None]
    for found in records:
        record.write_atomically(target / RECORDS / f"{found.id}.json", found.to_json())
    dataset = next((node.place for node in chain.of_kind("dataset") if node.place), None)
    if dataset and dataset.path(membership.PRODUCTS):
        membership.write(membership.members(dataset), target / ROWS)
    rows = record.hash_file(target / ROWS) if (target / ROWS).is_file() else None
    return {"records": len(records), "rows": rows}


def versions(endpoint: str | None = None) -> list[Version]:
    """Every version that went live, oldest first."""
    found = []
    for name in sorted({entry["endpoint"] for entry in registry.history(endpoint)}):
        entries = registry.history(name)
        aliases = {number: alias for alias, number in asdict(registry.aliases(name)).items() if number is not None}
        for number in dict.fromkeys(entry["version"] for entry in entries if entry["to"] == "live"):
            own = [entry for entry in entries if entry["version"] == number]
            live = next(e for e in reversed(own) if e["to"] == "live" and e.get("action") != registry.RENEW)
            facts = {key: entry[key] for entry in own for key in FACTS if key in entry}
            facts |= {"time": live["time"], "who": live["who"]}
            found.append(
                Version(endpoint=name, version=number, alias=aliases.get(number), state=own[-1]["to"], facts=facts)
            )
    return found


def live(endpoint: str, version: int | None = None) -> Version:
    """One version of an endpoint, by default the one that answers now. Raises `UserError` if there is none."""
    known = versions(endpoint)
    for found in known:
        if found.version == version or (version is None and found.alias == "champion"):
            return found
    if version is not None and known:
        numbers = ", ".join(str(found.version) for found in known)
        raise UserError(f"{endpoint} never had a live version {version}; it had {numbers}.")
    raise UserError(f"nothing is live at {endpoint}. Promote a model: `fittingroom promote ce_clip`.")


def trace(found: Version, source: Archive, chain: Chain) -> Chain:
    """Add the chain behind a version: its export and verdict, and the checks of what was installed and written."""
    export = found.facts["export_record"]
    walk(source, export, f"{EXPORTS}/{found.facts.get('method')}", chain)
    if found.facts.get("verdict_record"):
        walk(source, found.facts["verdict_record"], f"{VERDICTS}/{found.facts.get('method')}", chain)
    chain.breaks += [*_aliases(found), *_agreement(found, chain.nodes), *_kept(found), *_config(found)]
    if found.alias or repository.version_folder(found.endpoint, found.version).is_dir():
        made = chain.nodes[export]
        for item in _installed(found, made):
            (chain.checks if isinstance(item, FileCheck) else chain.breaks).append(item)  # type: ignore[arg-type]
    rows = (found.facts.get("lineage") or {}).get("rows")
    if rows and (found.kept / ROWS).is_file():
        chain.checks.append(
            FileCheck(path=found.kept / ROWS, shown=str(found.kept / ROWS), expected=rows, link=f"rows of {found.name}",
                      cure="Promote the model again.")
        )  # fmt: skip
    return chain


def history_breaks() -> list[Break]:
    """Lines of the history that are not as they were written."""
    return [
        Break(link="promotion history", file=f"{registry.HISTORY} line {number}", problem=problem,
              cure="Restore the file from a backup; what is live follows from it.")
        for number, problem in registry.damage()
    ]  # fmt: skip


def _aliases(found: Version) -> Iterator[Break]:
    """The two copies of what the history says: aliases.json, and the pointer to the champion's model."""
    expected = {name: asdict(registry.aliases(name)) for name in sorted({e["endpoint"] for e in registry.history()})}
    text = registry.ALIASES.read_bytes() if registry.ALIASES.is_file() else b""
    if text != (json.dumps(expected, indent=2) + "\n").encode():
        yield Break(
            link="promotion history -> aliases", file=str(registry.ALIASES),
            problem="does not say what the history says",
            cure=f"Remove {registry.ALIASES}; the next promotion or rollback writes it anew.",
        )  # fmt: skip
    if found.alias == "champion":
        pointer = CHAMPIONS / found.endpoint / CURRENT
        named = pointer.read_bytes() if pointer.is_file() else b""
        if named != f"{found.facts['model_record']}\n".encode():
            yield Break(
                link=f"{found.name} -> champion's model", file=str(pointer), problem="names another model",
                expected=found.facts["model_record"], found=named.decode(errors="replace").strip() or "nothing",
                cure=f"Write {found.facts['model_record']} into it; the gate compares with that model.",
            )  # fmt: skip


def _agreement(found: Version, nodes: dict[str, Node]) -> Iterator[Break]:
    """Promotion line, export and verdict must speak of one model."""
    model = found.facts["model_record"]
    export, verdict = nodes[found.facts["export_record"]], nodes.get(found.facts.get("verdict_record") or "")
    again = "Export the model again (`dvc repro -f`) and promote it."
    if export.record is not None and export.record.summary.get("model_record") != model:
        yield Break(
            link=f"{found.name} -> {export.name}", file=str(registry.HISTORY), problem="names another model",
            expected=model, found=str(export.record.summary.get("model_record")), cure=again,
        )  # fmt: skip
    content = verdict.place.path("verdict.json") if verdict and verdict.place else None
    if verdict and content:
        try:
            judged = json.loads(content.read_bytes())["model_record"]
        except (ValueError, KeyError, TypeError):  # the file's hash says so too
            return
        if judged != model:
            yield Break(
                link=f"{found.name} -> {verdict.name}", file=str(content), problem="judges another model",
                expected=model, found=str(judged), cure="Run the gate again (`dvc repro -f`).",
            )  # fmt: skip


def _kept(found: Version) -> Iterator[Break]:
    """The records that the promotion kept, each against its own name."""
    kept = found.facts.get("lineage")
    if not kept:
        return
    paths = sorted((found.kept / RECORDS).glob("*.json"))
    for path in paths:
        problem = None
        try:
            text = path.read_bytes().decode()
            stated, content = record.parse(text, path)
            if not content.id == stated == path.stem or text != content.to_json():
                problem = "was edited: its content does not have the id that names it"
        except (UserError, ValueError):
            problem = "is not a record any more"
        if problem:
            yield Break(
                link=f"records kept of {found.name}", file=str(path), problem=problem,
                cure="Promote the model again.",
            )  # fmt: skip
    if len(paths) != kept["records"] or (kept["rows"] and not (found.kept / ROWS).is_file()):
        yield Break(
            link=f"records kept of {found.name}", file=str(found.kept),
            problem=f"is not complete: {len(paths)} of {kept['records']} records"
            + ("" if (found.kept / ROWS).is_file() else f", no {ROWS}"), cure="Promote the model again.",
        )  # fmt: skip


def _installed(found: Version, export: Node) -> Iterator[FileCheck | Break]:
    """The version folder under the live name, byte for byte what the export's record lists, and its golden answers."""
    if export.record is None:
        return
    folder, again = repository.version_folder(found.endpoint, found.version), "Promote the model again."
    prefix, link = f"model/{found.endpoint}/", f"{found.name} -> {export.name}"
    listed = {}
    for item in export.record.outputs:
        if item["path"].startswith(f"{prefix}1/"):
            listed[folder / item["path"][len(prefix) + 2 :]] = item
        elif item["path"] == f"{prefix}{CONFIG}":
            listed[folder / repository.TEMPLATE] = item
    content = sorted([path.relative_to(folder).as_posix(), item["hash"]] for path, item in listed.items())
    if canonical_hash(content) != found.facts.get("folder", canonical_hash(content)):
        yield Break(
            link=link, file=str(folder), problem="was checked with another content than the export's",
            expected=found.facts["folder"], found=canonical_hash(content), cure=again,
        )  # fmt: skip
    listed |= {
        GOLDEN / found.endpoint / str(found.version) / Path(item["path"]).name: item
        for item in export.record.outputs if item["path"].startswith("golden/")
    }  # fmt: skip
    for path, item in listed.items():
        original = next((p.name for p in export.places if p.state == "here"), None)
        cure = f"Copy it back (`cp {original}/{item['path']} {path}`) and restart the server." if original else again
        if path.is_file():
            yield FileCheck(path=path, shown=str(path), expected=item["hash"], link=link, cure=cure)
        else:
            yield Break(link=link, file=str(path), problem="is missing", cure=cure)
    for path in sorted(record.files_below(folder)):
        if path not in listed and "__pycache__" not in path.parts:
            yield Break(link=link, file=str(path), problem="is not part of the export", cure="Remove it.")


def _config(found: Version) -> Iterator[Break]:
    """The live model's config.pbtxt is the template of the champion, the export's record, and the versions loaded."""
    path = REPOSITORY / found.endpoint / CONFIG
    if found.alias != "champion":
        return
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    template = repository.version_folder(found.endpoint, found.version) / repository.TEMPLATE
    start = template.read_bytes().decode(errors="replace") if template.is_file() else ""
    policy = POLICY.search(text)
    expected = start + parameter("export_record", found.facts["export_record"]) + (policy[0] if policy else "")
    previous = registry.aliases(found.endpoint).previous
    loaded = policy[1] if policy else None
    if text != expected or loaded not in (f"{found.version}", f"{previous}, {found.version}"):
        yield Break(
            link=f"{found.name} -> server", file=str(path),
            problem=f"is not the configuration of export {found.facts['export_record'][:DIGITS]}",
            cure="Restart the server (`fittingroom stop`, `fittingroom serve`), which writes it anew.",
        )  # fmt: skip
