"""What `fittingroom trace` and `fittingroom impact` print for people."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from data.archive import DIGITS
from data.lineage import Break, Chain, Node
from orchestration.lineage_cli import Rows, Traced, breaks_json, lines_of
from serving import overrides
from serving.impact import Holding, Impact
from serving.lineage import Version

WHOLE, BROKEN, UNSEEN = "[green]whole[/]", "[red]BROKEN[/]", "[yellow]not at hand[/]"


def show_trace(found: Traced, rows: Rows) -> None:
    """The chain as a tree, what is broken, the rows behind it, and one line that sums up."""
    console = _console()
    tree = Tree(_title(found))
    seen: set[str] = set()
    for record_id in found.roots:
        _grow(tree, found.chain, record_id, "", seen)
    console.print(tree, soft_wrap=False)
    _show_rows(console, rows)
    _show_breaks(console, found.chain.all_breaks)
    for node in found.chain.absent:
        console.print(f"{UNSEEN}  {node.name}: {escape(node.absent or '')}")
    amount = f"{found.chain.files} files, {found.chain.bytes / 1e6:,.1f} MB hashed in {found.seconds:.1f} s"
    state = WHOLE if found.chain.whole else BROKEN if found.chain.all_breaks else UNSEEN
    count = len(found.chain.nodes)
    console.print(f"{state}  {count} record{'s' * (count != 1)}, {amount}")


def show_broken(breaks: list[Break], as_json: bool) -> int:
    """A history that is damaged so that nothing can be traced. Returns the exit code."""
    if as_json:
        print(json.dumps({"whole": False, "breaks": breaks_json(breaks)}, indent=2, ensure_ascii=False))
    else:
        _show_breaks(_console(), breaks)
    return 1


def show_impact(found: Impact) -> None:
    """Where a product is: its rows, the outputs of the workspace, earlier ones, live versions; and what to do."""
    console = _console()
    console.print(f"product {escape(found.id)} of catalog {escape(found.catalog)}")
    _table(console, "rows", lines_of(found.sources))
    here = [held for held in found.holdings if any(place.state == "here" for place in held.node.places)]
    _table(console, "outputs that contain it", map(_holding, here))
    earlier: dict[str, list[str]] = {}
    for held in found.holdings:
        if held not in here:
            earlier.setdefault(held.node.kind, []).append(held.node.id[:DIGITS])
    _table(console, "earlier ones that contain it", ((kind, ", ".join(ids)) for kind, ids in earlier.items()))
    if not found.holdings:
        console.print("nothing contains it")
    _table(console, "versions that contain it", ((v.name, _alias(v), "; ".join(how)) for v, how in found.versions))
    for node in found.unknown:
        console.print(f"{UNSEEN}  {node.name}: its rows are gone, so it is not known whether they had the product")
    if found.steps:
        console.print("\n[bold]what has to be done, in order[/]")
    for number, (command, why) in enumerate(found.steps, start=1):
        console.print(f"{number}  {escape(why)}\n   [bold]{escape(command)}[/]")


def _title(found: Traced) -> str:
    version = found.version
    if version is None:
        return escape(found.target)
    facts = version.facts
    override = ""
    if given := overrides.of({**facts, "endpoint": version.endpoint, "version": version.version}):
        override = f", overridden {'(EXPIRED)' if given.expired else f'until {given.until[:10]}'}: {given.reason}"
    promoted = f"{facts.get('method')}, promoted {facts['time'][:19]} by {facts['who']}{override}"
    return escape(f"{version.name}, {_alias(version)}: {promoted}")


def _alias(version: Version) -> str:
    return {"champion": "live", "previous": "previous"}.get(version.alias or "", version.state.replace("_", " "))


def _grow(tree: Tree, chain: Chain, record_id: str, note: str, seen: set[str]) -> None:
    node = chain.nodes[record_id]
    if record_id in seen:
        tree.add(f"[dim]{escape(node.name)} (above)[/]")
        return
    seen.add(record_id)
    branch = tree.add(_label(node, note))
    for item in node.inputs:
        if not item.records:
            branch.add(escape(f"{item.path} ({item.note})" if item.note else item.path))
        for inner in item.records:
            _grow(branch, chain, inner, item.note, seen)


def _label(node: Node, note: str) -> str:
    state = BROKEN if node.breaks else UNSEEN if node.absent else WHOLE
    where = ", ".join(place.name for place in node.places)
    size = ""
    if node.record is not None:
        files = node.record.outputs
        size = f"  {len(files)} files, {sum(item['bytes'] for item in files) / 1e6:,.1f} MB"
    said = f" ({note})" if note else ""
    return f"{state}  [bold]{escape(node.name)}[/]{escape(_said(node))}{size}\n[dim]{escape(where)}{escape(said)}[/]"


def _said(node: Node) -> str:
    """What a record says of itself in two or three words."""
    summary = node.record.summary if node.record else {}
    if node.kind == "drop":
        return f"  {summary.get('name')}: {summary.get('accepted')} of {summary.get('rows')} rows accepted"
    if node.kind == "verdict":
        return f"  {summary.get('verdict')}"
    return f"  {summary['products']:,} products" if node.kind == "dataset" and "products" in summary else ""


def _show_rows(console: Console, rows: Rows) -> None:
    if rows.total:
        splits = ", ".join(f"{count:,} {name}" for name, count in rows.splits.items())
        drops = ", ".join(f"{count:,} of drop {name}" for name, count in rows.drops.items())
        console.print(f"rows: {rows.total:,} ({splits}; {drops})")
    if rows.gone:
        console.print(f"{UNSEEN}  rows: {escape(rows.gone)}")
    _table(console, "", lines_of(rows.shown))


def _show_breaks(console: Console, breaks: Iterable[Break]) -> None:
    for found in breaks:
        console.print(f"{BROKEN}  {escape(str(found))}")


def _holding(held: Holding) -> tuple[str, ...]:
    place = ", ".join(place.name for place in held.node.places if place.state == "here")
    stages = ", ".join(inner.record.stage for inner in held.through if inner.record)
    return held.node.id[:DIGITS], place, "; ".join((*held.how, *([f"through {stages}"] if stages else [])))


def _table(console: Console, title: str, rows: Iterable[tuple[str, ...]]) -> None:
    cells = list(rows)
    if not cells:
        return
    if title:
        console.print(f"\n[bold]{title}[/]")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    for row in cells:
        table.add_row(*map(escape, row))
    console.print(table)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
