"""What contains a product: datasets, hard negatives, models, evaluations, exports and live versions, by their own rows.

The chain of records says which dataset an output was made from; whether the product is in it is read from the rows: one
that was quarantined, withdrawn or replaced is not in. Where a dataset's rows are gone, those kept at promotion answer.
Files are not hashed here: `fittingroom trace` tells whether they are still the ones that their records speak of.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import membership
from data.archive import Archive, Place
from data.keywords import clean_caption
from data.lineage import Chain, Node, landed, walk
from data.params import UserError
from data.record import hash_file
from data.text import fold
from serving import lineage
from serving.config import DATASET
from serving.lineage import Version
from training.champion import CHAMPIONS

LEARNT = ("train", "val")  # splits that a model is fitted or chosen with
# Kind of record: the kinds of its inputs through which it contains what they contain. A model also learns from its
# dataset, by the product's split.
THROUGH = {
    "model": ("negatives", "corpus", "model"), "evaluation": ("suites", "model"), "verdict": ("suites", "evaluation"),
    "export": ("model",),
}  # fmt: skip
STEPS = (  # kinds in the order in which they are made again, and why
    ("without the product", ("dataset",)),
    ("data made from it", ("negatives", "corpus", "suites")),
    ("models that learnt from it", ("model",)),
    ("their examination", ("evaluation", "verdict")),
    ("what is served", ("export",)),
)
CLOSE = 5  # ids named beside one that is unknown


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One output that contains the product. `how` says where in it; `through` names its inputs that contain it."""

    node: Node
    how: tuple[str, ...] = ()
    through: tuple[Node, ...] = ()


@dataclass(kw_only=True)
class Impact:
    """Everything that contains a product.

    Attributes:
        sources: the rows of the drops that name it (data/membership.py), in landing order.
        holdings: what contains it, inputs first.
        versions: the versions of endpoints that contain it, and how.
        unknown: records that could not be asked, because their rows are gone.
        steps: what to do so that nothing live contains it any more: (command, why).
    """

    catalog: str
    id: str
    sources: list[dict[str, Any]]
    holdings: list[Holding] = field(default_factory=list)
    versions: list[tuple[Version, tuple[str, ...]]] = field(default_factory=list)
    unknown: list[Node] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)


def impact(product: str, catalog: str | None = None) -> Impact:
    """What contains a product. Raises `UserError` for an id that no drop has, or that several catalogs have."""
    source = lineage.archive()
    chain, versions = Chain(), lineage.versions()
    for place in (*source.here, *source.cached):
        if place.record is not None and place.record.id == place.stated:
            walk(source, place.record.id, place.name, chain)
    for version in versions:
        walk(source, version.facts["export_record"], "", chain)
    drops = _drops(chain)
    catalog = _known(drops, product, catalog)
    asked = _Question(chain, catalog, product, _kept_rows(versions))
    found = Impact(catalog=catalog, id=product, sources=membership.sources(drops, [product], catalog))
    found.holdings = [held for node in chain.nodes.values() if (held := asked.held(node))]
    found.holdings.sort(key=lambda held: _rank(held.node))
    found.unknown = asked.unknown
    found.versions = [(version, how) for version in versions if (how := _served(version, chain, asked))]
    found.steps = list(_steps(found, source))
    return found


class _Question:
    """Whether the outputs of a chain contain one product; every record is asked once."""

    def __init__(self, chain: Chain, catalog: str, product: str, kept: dict[str, Path]) -> None:
        self._chain, self._catalog, self._id, self._kept = chain, catalog, product, kept
        self._answers: dict[str, Holding | None] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self.unknown: list[Node] = []

    def held(self, node: Node) -> Holding | None:
        if node.id not in self._answers:
            self._answers[node.id] = None  # records cannot contain themselves
            through = [inner for inner in self._inputs(node, THROUGH.get(node.kind, ())) if self.held(inner)]
            how = tuple(self._how(node))
            if how or through:
                self._answers[node.id] = Holding(node=node, how=how, through=tuple(through))
        return self._answers[node.id]

    def _how(self, node: Node) -> Iterator[str]:
        """Where in its own rows an output contains the product."""
        if node.kind == "dataset":
            yield from (f"in split {row['split']}" for row in self.rows(node))
            back = membership.held_back(node.place, [self._id], self._catalog) if node.place else []
            yield from (["its row is kept, but held back from every split"] if back and not self.rows(node) else [])
            return
        rows = [row for dataset in self._inputs(node, ("dataset",)) for row in self.rows(dataset)]
        if not rows or node.kind not in ("negatives", "corpus", "suites", "model", "export"):
            return
        if node.kind == "model":
            yield from (f"learns from split {row['split']}" for row in rows if row["split"] in LEARNT)
        elif node.place is None:
            yield from self._by_split(node, rows)
        elif node.kind == "export":
            yield from _indexed(node, self._twins(node, rows))
        else:
            yield from _COUNTS[node.kind](node.place, rows)

    def rows(self, dataset: Node) -> list[dict[str, Any]]:
        """The product's rows of a dataset: from its table, else from what a promotion kept of it."""
        if dataset.id not in self._rows:
            if dataset.place and dataset.place.path(membership.PRODUCTS):
                found = membership.products(dataset.place, [self._id], self._catalog)
            elif dataset.id in self._kept:
                table = membership.read(self._kept[dataset.id]).to_pylist()
                found = [row for row in table if (row["catalog"], row["id"]) == (self._catalog, self._id)]
            else:
                found = []
                self.unknown.append(dataset)
            self._rows[dataset.id] = found
        return self._rows[dataset.id]

    def _by_split(self, node: Node, rows: list[dict[str, Any]]) -> Iterator[str]:
        """What can be said of an output whose files are gone, from the product's split alone."""
        wanted = ("test",) if node.kind == "suites" else LEARNT if node.kind != "export" else ("train", "val", "test")
        yield from (f"by its split {row['split']}; its own rows are gone" for row in rows if row["split"] in wanted)

    def _inputs(self, node: Node, kinds: Iterable[str]) -> list[Node]:
        ids = [record for item in node.inputs for record in item.records]
        return [self._chain.nodes[i] for i in ids if i in self._chain.nodes and self._chain.nodes[i].kind in kinds]

    def _twins(self, export: Node, rows: list[dict[str, Any]]) -> list[str]:
        """The product, and those that show the same picture: an index has one row per picture."""
        keys = {row["image_key"] for row in rows if row.get("image_key")}
        places = [dataset.place for dataset in self._inputs(export, ("dataset",)) if dataset.place]
        others = [row["id"] for place in places for row in membership.of_picture(place, keys)] if keys else []
        return list(dict.fromkeys([self._id, *others]))


def _of_negatives(place: Place, rows: list[dict[str, Any]]) -> Iterator[str]:
    edits = membership.count_rows(place.path("negatives.parquet"), "row_id", [row["row_id"] for row in rows])
    captions = {text for row in rows for text in (row.get("title"), row.get("derived_caption")) if text}
    swaps = membership.count_rows(place.path("swaps.parquet"), "caption", captions)
    yield from ([f"{edits} negatives of its captions"] if edits else [])
    yield from ([f"{swaps} swaps of its captions"] if swaps else [])


def _of_corpus(place: Place, rows: list[dict[str, Any]]) -> Iterator[str]:
    learnt = [row for row in rows if row["split"] == "train"]
    texts = [text for row in learnt for text in (row.get("title"), row.get("derived_caption")) if text]
    wanted = {fold(clean_caption(text)) for text in texts}
    captions = membership.values(place.path("corpus.parquet"), "caption") if wanted else []
    if count := sum(fold(caption) in wanted for caption in captions):
        yield f"{count} of its captions"


def _of_suites(place: Place, rows: list[dict[str, Any]]) -> Iterator[str]:
    ids = [row["row_id"] for row in rows]
    for name in sorted(name for name in place.files or {} if name.endswith(".parquet")):
        if count := membership.count_rows(place.path(name), "row_id", ids):
            yield f"{count} items of {Path(name).stem}"


_COUNTS = {"negatives": _of_negatives, "corpus": _of_corpus, "suites": _of_suites}


def _indexed(export: Node, ids: list[str]) -> Iterator[str]:
    """Whether the product index of an export holds the product, or its picture under another product's id."""
    assert export.place is not None
    for name in export.place.files or {}:
        path = export.place.path(name) if name.endswith("/products.json") else None
        listed = set(json.loads(path.read_text(encoding="utf-8"))["id"]) if path else set()
        for found in [each for each in ids if each in listed]:
            yield "in its product index" if found == ids[0] else f"its picture is in the index, as product {found}"


def _served(version: Version, chain: Chain, asked: _Question) -> tuple[str, ...]:
    """How a version contains the product; empty if it does not."""
    held = asked.held(chain.nodes[version.facts["export_record"]])
    return (*held.how, *(f"through {inner.name}" for inner in held.through)) if held else ()


def _kept_rows(versions: list[Version]) -> dict[str, Path]:
    """{dataset record: the membership that a promotion kept of it}, where the file is the one that was kept."""
    found: dict[str, Path] = {}
    for version in versions:
        expected = (version.facts.get("lineage") or {}).get("rows")
        path = version.kept / lineage.ROWS
        if expected and path.is_file() and hash_file(path) == expected:
            chain = walk(Archive([version.kept / lineage.RECORDS]), version.facts["export_record"])
            found |= {node.id: path for node in chain.of_kind("dataset")}
    return found


def _drops(chain: Chain) -> list[Place]:
    places = {node.place.name: node.place for node in chain.of_kind("drop") if node.place}
    return sorted(places.values(), key=lambda place: (landed(place), place.name))


def _known(drops: list[Place], product: str, catalog: str | None) -> str:
    """The catalog of a product that some drop names. Raises `UserError` with ids close to one that none does."""
    everything = membership.all_ids(drops)
    catalogs = sorted({name for name, known in everything if known == product})
    if catalog in catalogs or (catalog is None and len(catalogs) == 1):
        return catalog or catalogs[0]
    if catalog is None and catalogs:
        raise UserError(f"product {product} is in the catalogs {', '.join(catalogs)}. Say which: --catalog NAME.")
    ids = sorted({known for name, known in everything if catalog in (None, name)})
    near = difflib.get_close_matches(product, (i for i in ids if i[:2] == product[:2]), n=CLOSE, cutoff=0.5)
    said = f" of catalog {catalog}" if catalog else ""
    hint = f"Close to it: {', '.join(near)}." if near else f"{len(ids):,} products are known{said}."
    raise UserError(f"product {product}{said} is in no drop that has landed. {hint}")


def _rank(node: Node) -> tuple[int, str]:
    kinds = [kind for _, kinds in STEPS for kind in kinds]
    return (kinds.index(node.kind) if node.kind in kinds else -1, node.record.stage if node.record else "")


def _steps(found: Impact, source: Archive) -> Iterator[tuple[str, str]]:
    """The commands, in order, after which nothing that is present or live contains the product."""
    present = {place.record.id for place in source.here if place.record and CHAMPIONS not in Path(place.name).parents}
    held = [h.node for h in found.holdings if h.node.id in present and h.node.record is not None]
    if any(place.name == DATASET.as_posix() for node in held for place in node.places):
        yield "fittingroom land DROP", f"DROP is a folder with a table: id,withdrawn / {found.id},yes"
    for why, kinds in STEPS:
        stages = [node.record.stage for node in held if node.kind in kinds and node.record]
        stages.sort(key=lambda name: (name != "base", name))
        if stages:
            yield f"dvc repro {' '.join(dict.fromkeys(stages))}", why
    for version, _ in found.versions:
        if version.alias:
            stays = "contains it; it stays loaded as previous until the promotion after that"
            why = stays if version.alias == "champion" else "is loaded as previous until the next promotion"
            yield f"fittingroom promote {version.facts.get('method')}", f"{version.name} {why}"
