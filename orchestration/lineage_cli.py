"""`fittingroom trace` and `fittingroom impact`: what stands behind an answer, and what a product is in."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.params import UserError

if TYPE_CHECKING:
    from data.archive import Archive, Place
    from data.lineage import Break, Chain, Node
    from serving.impact import Impact
    from serving.lineage import Version

TRACE = """Print the chain behind an answer, a live endpoint or a record, down to the rows of the drops,
and hash every file on the way again.

TARGET is one of
  an answer             a file that `fittingroom ask --json` wrote, or - for standard input
  an endpoint           search: the version that answers now; search@3: one that did
  a record id           of a model (`record` of an answer) or of any other output; the first digits are enough
  a folder              store/exports/ce_clip
  a product             its rows in the drops

The exit code is 0 if every link is whole, 1 if one is broken or cannot be checked here, 2 if TARGET is not known."""
IMPACT = """List what contains a product: rows of drops, datasets, hard negatives, corpus captions, models, evaluations,
exports and live versions; and the commands, in order, after which nothing live contains it.

Membership is read from the rows themselves: a product that was quarantined, withdrawn or replaced is not in. Files are
not hashed; `fittingroom trace` does that."""
ROWS = 3  # rows shown unless asked for more
PREFIX = 6  # digits of a record id that must be given at least


@dataclass(kw_only=True)
class Traced:
    """A chain and what it was asked for: its roots, the version and answer it begins with, the products asked about."""

    target: str
    chain: Chain
    source: Archive
    roots: list[str] = field(default_factory=list)
    version: Version | None = None
    products: list[str] = field(default_factory=list)
    seconds: float = 0.0


def register(command: Callable[..., argparse.ArgumentParser], commands: Any) -> None:
    """Add both commands to the parser of `fittingroom`."""
    trace = command(commands, "trace", _trace, "the chain behind an answer or record down to the rows, verified")
    trace.description, trace.formatter_class = TRACE, argparse.RawDescriptionHelpFormatter
    trace.add_argument("target", metavar="TARGET", help="an answer, an endpoint, a record id, a folder or a product")
    trace.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"rows shown (default: {ROWS})")
    impact = command(commands, "impact", _impact, "what contains a product, and what to do to be rid of it")
    impact.description, impact.formatter_class = IMPACT, argparse.RawDescriptionHelpFormatter
    impact.add_argument("product", metavar="PRODUCT_ID", help="the product's id in its catalog")
    impact.add_argument("--catalog", metavar="NAME", help="its catalog, where several have such an id")
    for parser in (trace, impact):
        parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _trace(args: argparse.Namespace) -> int:
    import time

    from data.lineage import verify
    from orchestration import lineage_screens
    from serving.lineage import history_breaks

    if args.rows < 0:
        raise UserError(f"--rows {args.rows}: give a number of rows from 0 on.")
    begun = time.monotonic()
    broken = history_breaks()
    try:
        found = resolve(args.target)
    except Exception:  # a damaged history can be wrong in any way; its damage is the answer then
        if not broken:
            raise
        return lineage_screens.show_broken(broken, args.json)
    found.chain.breaks[:0] = broken if found.version else []
    verify(found.chain)
    found.seconds = time.monotonic() - begun
    rows = rows_of(found, args.rows)
    if args.json:
        print(json.dumps(as_json(found, rows), indent=2, ensure_ascii=False))
    else:
        lineage_screens.show_trace(found, rows)
    return 0 if found.chain.whole else 1


def _impact(args: argparse.Namespace) -> int:
    from orchestration import lineage_screens
    from serving.impact import impact

    found = impact(args.product, args.catalog)
    if args.json:
        print(json.dumps(_impact_json(found), indent=2, ensure_ascii=False))
    else:
        lineage_screens.show_impact(found)
    return 0


def resolve(target: str) -> Traced:
    """The chain that `target` asks for, not verified yet. Raises `UserError` if it is nothing that is known."""
    from data.lineage import Chain, walk
    from serving import lineage
    from training.champion import ENDPOINTS

    found = Traced(target=target, chain=Chain(), source=lineage.archive())
    endpoint, _, number = target.partition("@")
    path = Path(target)
    if endpoint in ENDPOINTS and (not number or number.isdecimal()):
        _begin(found, lineage.live(endpoint, int(number) if number else None))
    elif target == "-" or (path.is_file() and path.name != "record.json"):
        _of_answer(found, _read_answer(target))
    elif path.is_dir() or path.is_file():
        place = found.source.at(path if path.is_dir() else path.parent)
        record_id = place.stated or place.name
        walk(found.source, record_id, place.name, found.chain)
        found.roots.append(record_id)
    else:
        _of_id(found, target)
    return found


def _begin(found: Traced, version: Version) -> None:
    """Begin the chain with a version: its export, and its verdict where one let it pass."""
    from serving import lineage

    lineage.trace(version, found.source, found.chain)
    found.version = version
    found.roots += [version.facts[key] for key in ("export_record", "verdict_record") if version.facts.get(key)]


def _of_answer(found: Traced, answer: dict[str, Any]) -> None:
    from data.lineage import Break
    from serving import lineage

    _begin(found, lineage.live(answer["endpoint"], answer["version"]))
    found.products = [str(hit["id"]) for hit in answer["hits"]]
    assert found.version is not None
    expected = found.version.facts["model_record"]
    if answer["record"] != expected:
        found.chain.breaks.append(
            Break(link=f"answer -> {found.version.name}", file=found.target, problem="names another model",
                  expected=expected, found=str(answer["record"]), cure="Ask again; the answer was edited.")
        )  # fmt: skip


def _of_id(found: Traced, target: str) -> None:
    """A record id, whole or its beginning, or a product id."""
    from data import membership
    from data.lineage import walk
    from serving import lineage

    known = sorted({i for i in found.source.ids() if i.startswith(target)}) if len(target) >= PREFIX else []
    drops = [place for place in found.source.here if place.record and place.record.kind == "drop"]
    sources = membership.sources(drops, [target])
    if len(known) + bool(sources) > 1:
        what = [*(f"record {i}" for i in known), *([f"product {target}"] if sources else [])]
        raise UserError(f"`{target}` may be {', '.join(what)}. Give more digits of the record id.")
    if known:
        version = next((v for v in reversed(lineage.versions()) if v.facts["model_record"] == known[0]), None)
        if version:
            _begin(found, version)
        else:
            walk(found.source, known[0], "", found.chain)
            found.roots.append(known[0])
    elif sources:
        found.products.append(target)
        for place in drops:
            if place.record and place.name in {row["place"] for row in sources}:
                walk(found.source, place.record.id, place.name, found.chain)
                found.roots.append(place.record.id)
    else:
        raise UserError(
            f"`{target}` is no endpoint, folder, answer, record id ({PREFIX} digits or more) or product of a landed "
            "drop. `fittingroom trace --help` says what can be traced."
        )


def _read_answer(target: str) -> dict[str, Any]:
    """The JSON of `fittingroom ask --json`. Raises `UserError` naming the field that is not as it should be."""
    cure = "Write it with `fittingroom ask TEXT --json > answer.json`."
    try:
        text = sys.stdin.read() if target == "-" else Path(target).read_text(encoding="utf-8")
        answer = json.loads(text)
        kinds = {"endpoint": str, "version": int, "record": str, "hits": list}
        for key, kind in kinds.items():
            if not isinstance(answer[key], kind):
                raise UserError(f"{target}: `{key}` is not what an answer has there. {cure}")
        [hit["id"] for hit in answer["hits"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{target}: not an answer ({error}). {cure}") from None
    return dict(answer)


@dataclass(kw_only=True)
class Rows:
    """The rows behind a chain: per dataset how many of each split, and some of them with their line in a drop."""

    total: int
    splits: dict[str, int]
    drops: dict[str, int]
    shown: list[dict[str, Any]]
    gone: str | None = None  # why they cannot be shown


def rows_of(found: Traced, count: int) -> Rows:
    """The rows behind the newest dataset of a chain: those of the products asked about, else the first `count`."""
    import pyarrow.compute as pc

    from data import membership

    datasets = found.chain.of_kind("dataset")
    drops = [node.place for node in found.chain.of_kind("drop") if node.place and not node.breaks]
    table, gone = _members(found, datasets)
    if table is None:
        shown = membership.sources(drops, found.products) if found.products else []
        return Rows(total=0, splits={}, drops={}, shown=shown, gone=gone)
    ids = found.products or table["id"].slice(0, count).to_pylist()
    mask = pc.is_in(table["id"], value_set=_strings(ids))
    wanted = {row["row_id"]: row["split"] for row in table.filter(mask).to_pylist()}
    sources = [row for row in membership.sources(drops, ids) if row["row_id"] in wanted]
    order = {product: place for place, product in enumerate(ids)}
    return Rows(
        total=table.num_rows, splits=_counts(table, "split"), drops=_counts(table, "drop_id"), gone=gone,
        shown=sorted(({**row, "split": wanted[row["row_id"]]} for row in sources), key=lambda row: order[row["id"]]),
    )  # fmt: skip


def _members(found: Traced, datasets: list[Node]) -> tuple[Any, str | None]:
    """(the membership of the chain's dataset, why it is only a kept copy or not there)."""
    from data import membership
    from serving.lineage import ROWS as KEPT

    for node in datasets:
        if node.place and not node.breaks and node.place.path(membership.PRODUCTS):
            return membership.members(node.place), None
    kept = found.version.kept / KEPT if found.version else None
    if kept and kept.is_file() and str(kept) not in {part.file for part in found.chain.breaks}:
        return membership.read(kept), f"from {kept}, which the promotion kept: the dataset itself is not at hand, whole"
    return None, "the dataset's rows are not at hand, whole" if datasets else None


def _strings(values: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _counts(table: Any, column: str) -> dict[str, int]:
    pairs = table[column].value_counts().to_pylist()
    return {str(pair["values"]): pair["counts"] for pair in sorted(pairs, key=lambda pair: -pair["counts"])}


def as_json(found: Traced, rows: Rows) -> dict[str, Any]:
    """What `fittingroom trace --json` prints."""
    chain = found.chain
    return {
        "target": found.target, "whole": chain.whole,
        "version": asdict(found.version) if found.version else None, "roots": found.roots,
        "records": [_node_json(node) for node in chain.nodes.values()],
        "breaks": breaks_json(chain.all_breaks), "rows": asdict(rows),
        "verified": {"files": chain.files, "bytes": chain.bytes, "seconds": round(found.seconds, 2)},
    }  # fmt: skip


def breaks_json(breaks: list[Break]) -> list[dict[str, Any]]:
    return [asdict(found) for found in breaks]


def _node_json(node: Node) -> dict[str, Any]:
    return {
        "id": node.id, "kind": node.kind, "stage": node.record.stage if node.record else None,
        "places": [_place_json(place) for place in node.places], "inputs": [asdict(item) for item in node.inputs],
        "whole": not node.breaks and not node.absent, "absent": node.absent,
    }  # fmt: skip


def _place_json(place: Place) -> dict[str, str]:
    return {"name": place.name, "state": place.state}


def _impact_json(found: Impact) -> dict[str, Any]:
    return {
        "catalog": found.catalog, "id": found.id, "rows": found.sources,
        "contained_in": [
            {**_node_json(held.node), "how": held.how, "through": [inner.id for inner in held.through]}
            for held in found.holdings
        ],
        "versions": [{**asdict(version), "how": how} for version, how in found.versions],
        "unknown": [node.id for node in found.unknown],
        "steps": [{"command": command, "why": why} for command, why in found.steps],
    }  # fmt: skip


def lines_of(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """(id, title, where it came from, split or state) of rows as people read them."""
    for row in rows:
        where = f"{row['drop']} line {row['row']}" if row.get("row") is not None else str(row["drop"])
        state = row.get("split") or row["state"]
        why = f" ({', '.join(row['reasons'])})" if row.get("reasons") else ""
        yield row["id"], row.get("title") or "-", f"{where} (drop {(row['content'] or '')[:12]})", f"{state}{why}"
