"""Land catalog drops: validate every row, accept or quarantine it, and put the result under DVC.

Each PATH is a folder with one table (csv, jsonl or parquet) and its pictures (in folders, plain tars, or parquet shards
with the columns id and image), or the address of such a folder (s3://bucket/drop, or whatever fsspec reads). A drop is
known by its content: landing the same files again does nothing. Rows that break a critical rule go to
quarantine.parquet with the reason; a row whose column `withdrawn` says true takes its product off the catalog; a drop
that cannot be trusted as a whole is refused, and then nothing is changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
import time
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import drift, drop_store, dvc, expectations, landed, record, remote, schema, stage
from data.drop_images import Place
from data.drop_store import DROPS
from data.drops import ID_DIGITS, Drop, hash_drop, read_drop
from data.expectations import Finding, Picture, Rule, Thresholds
from data.images import ImageError, ImageLimits, examine, in_threads
from data.mapping import CatalogMapping, mapping_of, read_mapping
from data.params import UserError, canonical_hash, section
from data.remote import RemoteLimits

if TYPE_CHECKING:
    import pyarrow as pa

    from data.gx import Suite

STAGE = "land"
DATASET = Path("store/dataset")  # what a drop is compared with
PICTURES = 4096  # pictures' facts held as Python values before they become Arrow columns


@dataclass(frozen=True, kw_only=True)
class LandConfig:
    """The `land` section of params.yaml."""

    images: ImageLimits = field(default_factory=ImageLimits)
    rules: Thresholds = field(default_factory=Thresholds)
    drift: drift.Limits = field(default_factory=drift.Limits)
    remote: RemoteLimits = field(default_factory=RemoteLimits)


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What became of a drop. `report` is the content of report.json; `new` is false if it had landed before."""

    folder: Path
    record_id: str
    new: bool
    report: Mapping[str, Any]

    @property
    def drop_id(self) -> str:
        return self.folder.name


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A drop before its table is read: what it is called, its content, how to read it, and under which settings."""

    called: str
    content_hash: str
    catalog: CatalogMapping
    config: LandConfig

    @property
    def out(self) -> Path:
        return DROPS / self.content_hash[:ID_DIGITS]

    @property
    def rules(self) -> list[Rule]:
        return expectations.rules(self.config.rules, self.catalog)

    @property
    def parameters(self) -> dict[str, Any]:
        """What a landing of it depends on."""
        return {
            "land": {"images": self.config.images, "rules": self.config.rules, "drift": self.config.drift},
            "content": self.content_hash, "schema": schema.VERSION, "rules": canonical_hash(self.rules),
            "mapping": self.catalog,
        }  # fmt: skip

    def landed_before(self) -> Landing | None:
        found = drop_store.landed_before(self.out, self.parameters)
        if found is None:
            return None
        stage.log(f"[{STAGE}] {self.called}: already landed as {self.out.name}; the files are the same. Nothing to do.")
        return Landing(folder=self.out, record_id=found[0], new=False, report=found[1])


def main(argv: Sequence[str] | None = None) -> int:
    return stage.main(_build, description=__doc__, argv=argv, arguments=arguments)


def land(paths: Sequence[str | Path], force: bool = False, mapping: Path | None = None) -> list[Landing]:
    """Land every drop of `paths` (folders or URLs) in turn and put store/drops under DVC.

    Args:
        force: also what has landed before.
        mapping: how to read their tables, instead of the mapping.yaml that a drop may hold.

    Raises `UserError` for the first drop that is refused: it leaves no trace, and those before it stay landed.
    """
    if not Path(".dvc").is_dir():
        raise UserError(f"{Path.cwd()}: not the root of a DVC repository; run `dvc init`, or change to the root.")
    dvc.command()  # raises where DVC is not installed
    config = section(LandConfig, "land")
    given = read_mapping(mapping) if mapping else None
    drop_store.check_complete()
    done: list[Landing] = []
    try:
        for path in paths:
            one = _land_remote if remote.is_url(str(path)) else _land_local
            done.append(one(str(path), given, config, force))
    finally:
        if done:
            drop_store.track()
    return done


def examine_pictures(drop: Drop, limits: ImageLimits, progress: Any = stage.progress) -> pa.Table:
    """What every row's picture is: the fields of `Picture` as columns, in the drop's order.

    Raises `UserError` for an image bomb: no row excuses one.
    """

    def look(row: int) -> Picture:
        try:
            return _examine(drop.places[row], limits)
        except ImageError as error:
            raise UserError(f"{drop.where(row)}: {error}") from None

    looked = in_threads(look, range(len(drop)))
    return picture_table(progress(looked, total=len(drop), what="images", label=STAGE))


def picture_table(pictures: Iterable[Picture]) -> pa.Table:
    """Pictures as a table with one column for each field."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    hints = typing.get_type_hints(Picture)
    columns = pa.schema(
        [(item.name, kinds[typing.get_args(hints[item.name])[0]]) for item in dataclasses.fields(Picture)]
    )
    remaining = iter(pictures)
    batches = []
    while batch := list(itertools.islice(remaining, PICTURES)):
        batches.append(pa.RecordBatch.from_pylist([vars(picture) for picture in batch], schema=columns))
    return pa.Table.from_batches(batches, schema=columns)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `land` besides --force."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a drop: a folder with table and pictures, or its URL")
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="how to read the tables (default: each drop's mapping.yaml)",
    )


def _build(args: argparse.Namespace) -> None:
    for landing in land(args.paths, force=args.force, mapping=args.mapping):
        if landing.new:
            print(summary(landing), flush=True)


def _land_local(path: str, given: CatalogMapping | None, config: LandConfig, force: bool) -> Landing:
    folder = Path(path)
    content_hash = hash_drop(folder)
    arrived = Arrived(
        called=path, content_hash=content_hash, catalog=given or mapping_of(folder), config=config
    )  # fmt: skip
    before = None if force else arrived.landed_before()
    return before or _land(folder, arrived)


def _land_remote(url: str, given: CatalogMapping | None, config: LandConfig, force: bool) -> Landing:
    """As a folder, once its files are here; what landed from an unchanged URL is not fetched again."""
    listing = remote.list_drop(url, config.remote)
    known = None if force else remote.recall(listing)
    if known:
        content_hash, own = known
        arrived = Arrived(called=url, content_hash=content_hash, catalog=given or own, config=config)
        if before := arrived.landed_before():
            return before
    with remote.fetch(listing) as folder:
        content_hash, own = hash_drop(folder), mapping_of(folder)
        arrived = Arrived(called=url, content_hash=content_hash, catalog=given or own, config=config)
        landing = (None if force else arrived.landed_before()) or _land(folder, arrived)
    remote.remember(listing, content_hash, own)
    return landing


def _land(folder: Path, arrived: Arrived) -> Landing:
    begun = time.monotonic()
    drop = read_drop(folder, arrived.catalog, arrived.content_hash)
    gone = f", {len(drop.table.withdrawn)} withdrawn" if len(drop.table.withdrawn) else ""
    stage.log(f"[{STAGE}] {arrived.called}: {len(drop)} rows of {drop.table.name}{gone}, drop {drop.drop_id}")
    pictures = examine_pictures(drop, arrived.config.images)
    return _write(drop, pictures, arrived, begun)


def _write(drop: Drop, pictures: pa.Table, arrived: Arrived, begun: float) -> Landing:
    from data.gx import Suite

    out = arrived.out
    suite = Suite(drop.drop_id, arrived.rules)
    table = expectations.frame(drop.table.rows, pictures)
    findings = suite.run(table)
    refused = landed.reasons(findings, drop)
    if refused and len(refused) == len(drop):
        rule, message = refused[min(refused)][0]
        raise UserError(f"{drop.name}: every row would be quarantined, the first for `{rule}` ({message}). Mend it.")
    drifted = _compare(suite, drop, refused, arrived.config.drift)
    drop.check_unchanged()
    with drop_store.alone(), stage.run(
        STAGE, kind="drop", command=f"python -m data.land {drop.name}", out=out, inputs=[],
        parameters=arrived.parameters, force=True,
    ) as run:  # fmt: skip
        landed.write(run.out, drop, pictures, refused, run.progress)
        expectations.write_findings(run.out / "findings.parquet", findings, table, drop.table.lines.tolist())
        suite.write_docs(run.out / "docs")
        place = drop_store.place(out)
        report = landed.report(drop, findings, refused, place, landed.changes(run.out, drop, place), drifted)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (run.out / drop_store.REPORT).write_text(text, encoding="utf-8")
        _tell(run, drop, findings, report)
        if drifted:
            drift.tell(run, arrived.config.drift, drifted, compared_with=record.read(DATASET).id)
        drop.check_unchanged()
        seconds = time.monotonic() - begun
        run.facts(seconds=round(seconds, 2), rows_per_second=round(len(drop) / seconds, 1))
        run.log(f"{len(drop)} rows validated in {seconds:.1f} s ({len(drop) / seconds:.0f} rows/s)")
    return Landing(folder=out, record_id=record.read(out).id, new=True, report=report)


def _compare(suite: Suite, drop: Drop, refused: landed.Refused, limits: drift.Limits) -> list[dict[str, Any]]:
    """How far the rows that land are from the last dataset's; empty where it has none of this catalog."""
    from data import drift_sample

    table = drift_sample.sample(
        DATASET, drop_id=drop.drop_id, catalog=drop.mapping.catalog, rows=drop.table.rows,
        accepted=[row for row in range(len(drop)) if row not in refused], read=lambda row: _picture(drop, row),
    )  # fmt: skip
    return [] if table is None else suite.run_drift(drift.rules(limits), table)


def _picture(drop: Drop, row: int) -> bytes:
    place = drop.places[row]
    return place.read() if place else b""


def _tell(run: stage.Run, drop: Drop, findings: Sequence[Finding], report: Mapping[str, Any]) -> None:
    """Summary, checks and tables of the record."""
    told = ("name", "drop_id", "catalog", "rows", "accepted", "quarantined", *landed.CHANGES)
    run.summary(**{key: report[key] for key in told}, docs="docs/index.html")
    for finding in findings:
        groups = {} if finding.groups is None else {"groups": finding.groups}
        run.check(
            finding.rule.name, not finding.count, severity=finding.rule.severity, count=finding.count,
            description=finding.rule.description, examples=landed.examples(finding, drop), **groups,
        )  # fmt: skip
    found = [rule for rule in report["rules"] if rule["count"]]
    run.table("Rules broken", [{k: r[k] for k in ("name", "severity", "count", "groups")} for r in found])


def summary(landing: Landing) -> str:
    """What the terminal shows at the end: accepted, quarantined and warned, with counts, and where to look."""
    report = landing.report
    lines = [
        f"{report['name']} landed as {landing.drop_id}",
        f"  {report['accepted']:>7,}  accepted of {report['rows']:,} rows",
        *(f"  {report[key]:>7,}    {key}" for key in ("new", "changed", "unchanged") if report[key]),
        *([f"  {report['withdrawn']:>7,}  withdrawn"] if report["withdrawn"] else []),
        *(
            [f"  {report['withdrawn_unknown']:>7,}    of which the catalog had no such product"]
            if report["withdrawn_unknown"] else []
        ),
        f"  {report['quarantined']:>7,}  quarantined",
        *_counts(report, "critical"),
    ]  # fmt: skip
    if warnings := _counts(report, "warning"):
        lines += ["           warnings, carried along", *warnings]
    return "\n".join([*lines, f"           Data Docs: {landing.folder / 'docs' / 'index.html'}"])


def _counts(report: Mapping[str, Any], severity: str) -> list[str]:
    broken = [rule for rule in report["rules"] if rule["count"] and rule["severity"] == severity]
    broken.sort(key=lambda rule: -rule["count"])
    return [f"  {rule['count']:>7,}    {rule['name']:<26} {rule['description']}" for rule in broken]


def _examine(place: Place | None, limits: ImageLimits) -> Picture:
    if place is None:
        return Picture()
    if place.size > limits.max_bytes:
        return Picture(bytes=place.size, problem=f"{place.size:,} bytes, more than {limits.max_bytes:,}")
    data = place.read()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        facts = examine(data, limits)
    except ImageError as error:
        if error.reason == "too_many_pixels":
            raise
        return Picture(bytes=len(data), sha256=sha256, problem=str(error))
    return Picture(
        bytes=len(data), sha256=sha256, key=facts.image_key, width=facts.width, height=facts.height, mode=facts.mode,
        grey_std=facts.grey_std,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
