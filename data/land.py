"""Land catalog drops: validate every row, accept or quarantine it, and put the result under DVC.

Each PATH is a folder with one table (csv, jsonl or parquet) and its pictures (in folders, plain tars, or parquet shards
with the columns id and image). A drop is known by its content: landing the same files again does nothing. Rows that
break a critical rule go to quarantine.parquet with the reason; a drop that cannot be trusted as a whole is refused, and
then nothing is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import dvc, expectations, landed, record, schema, stage
from data.drop_images import Place
from data.drops import ID_DIGITS, Drop, hash_drop, read_drop
from data.expectations import Finding, Picture, Rule, Thresholds
from data.images import ImageError, ImageLimits, examine, in_threads
from data.params import UserError, canonical, canonical_hash, section

STAGE = "land"
DROPS = Path("store/drops")
LOCK = Path("runs/land.lock")


@dataclass(frozen=True, kw_only=True)
class LandConfig:
    """The `land` section of params.yaml."""

    images: ImageLimits = field(default_factory=ImageLimits)
    rules: Thresholds = field(default_factory=Thresholds)


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


def main(argv: Sequence[str] | None = None) -> int:
    return stage.main(_build, description=__doc__, argv=argv, arguments=_arguments)


def land(paths: Sequence[Path], force: bool = False) -> list[Landing]:
    """Land every drop of `paths` in turn and put store/drops under DVC.

    Raises `UserError` for the first drop that is refused: it leaves no trace, and those before it stay landed.
    """
    if not Path(".dvc").is_dir():
        raise UserError(f"{Path.cwd()}: not the root of a DVC repository; run `dvc init`, or change to the root.")
    dvc.command()  # raises where DVC is not installed
    config = section(LandConfig, "land")
    _check_complete()
    done: list[Landing] = []
    try:
        for path in paths:
            done.append(_land(path, config, force))
    finally:
        if done:
            with _alone():
                dvc.call("add", DROPS.as_posix())
    return done


def examine_pictures(drop: Drop, limits: ImageLimits, progress: Any = stage.progress) -> list[Picture]:
    """What every row's picture is, in the drop's order. Raises `UserError` for an image bomb: no row excuses one."""

    def look(row: int) -> Picture:
        try:
            return _examine(drop.places[row], limits)
        except ImageError as error:
            raise UserError(f"{drop.where(row)}: {error}") from None

    looked = in_threads(look, range(len(drop)))
    return list(progress(looked, total=len(drop), what="images", label=STAGE))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a drop: a folder with table and pictures")


def _build(args: argparse.Namespace) -> None:
    for landing in land(args.paths, force=args.force):
        if landing.new:
            print(summary(landing), flush=True)


def _land(path: Path, config: LandConfig, force: bool) -> Landing:
    rules = expectations.rules(config.rules)
    content_hash = hash_drop(path)
    parameters = {
        "land": config, "content": content_hash, "schema": schema.VERSION, "rules": canonical_hash(rules)
    }  # fmt: skip
    out = DROPS / content_hash[:ID_DIGITS]
    before = None if force else _landed_before(out, parameters)
    if before:
        stage.log(f"[{STAGE}] {path}: already landed as {before.drop_id}; the files are the same. Nothing to do.")
        return before
    begun = time.monotonic()
    drop = read_drop(path)
    stage.log(f"[{STAGE}] {path}: {len(drop)} rows of {drop.table.name}, drop {drop.drop_id}")
    pictures = examine_pictures(drop, config.images)
    return _write(out, drop, pictures, rules, parameters, begun)


def _write(out: Path, drop: Drop, pictures: list[Picture], rules: list[Rule], parameters: Mapping[str, Any],
           begun: float) -> Landing:  # fmt: skip
    from data.gx import Suite

    suite = Suite(drop.drop_id, rules)
    table = expectations.frame(drop.table.columns, pictures)
    findings = suite.run(table)
    refused = landed.reasons(findings, drop)
    if len(refused) == len(drop):
        rule, message = refused[0][0]
        raise UserError(f"{drop.name}: every row would be quarantined, the first for `{rule}` ({message}). Mend it.")
    drop.check_unchanged()
    with _alone(), stage.run(
        STAGE, kind="drop", command=f"python -m data.land {drop.name}", out=out, inputs=[], parameters=parameters,
        force=True,
    ) as run:  # fmt: skip
        landed.write_rows(run.out, drop, pictures, refused, run.progress)
        suite.write_docs(run.out / "docs")
        report = landed.report(drop, findings, refused, _place(out))
        (run.out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _tell(run, drop, findings, report)
        drop.check_unchanged()
        seconds = time.monotonic() - begun
        run.facts(seconds=round(seconds, 2), rows_per_second=round(len(drop) / seconds, 1))
        run.log(f"{len(drop)} rows validated in {seconds:.1f} s ({len(drop) / seconds:.0f} rows/s)")
    return Landing(folder=out, record_id=record.read(out).id, new=True, report=report)


def _tell(run: stage.Run, drop: Drop, findings: Sequence[Finding], report: Mapping[str, Any]) -> None:
    """Summary, checks and tables of the record."""
    counts = {key: report[key] for key in ("name", "drop_id", "rows", "accepted", "quarantined")}
    run.summary(**counts, docs="docs/index.html")
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
        f"  {report['quarantined']:>7,}  quarantined",
        *_counts(report, "critical"),
    ]
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


def _landed_before(out: Path, parameters: Mapping[str, Any]) -> Landing | None:
    """The landing of the same content under the same rules, if all its files are whole."""
    try:
        found = record.verify(out)
    except UserError:
        return None
    if found.parameters != canonical(parameters):
        return None
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return Landing(folder=out, record_id=found.id, new=False, report=report)


def _place(out: Path) -> int:
    """The number of a drop in the order of landing, from 1; one that lands again keeps its own."""
    places = {}
    for path in DROPS.glob("[!.]*/report.json"):
        places[path.parent] = int(json.loads(path.read_text(encoding="utf-8"))["landed"])
    return places.get(out) or max(places.values(), default=0) + 1


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the landing lock (the system lets go of it if this process dies), and clear what a killed landing left."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _recover(DROPS)
        yield


def _check_complete() -> None:
    """Every drop that DVC knows must be here: `dvc add` would else forget the ones that are not."""
    tracked = DROPS.with_name(f"{DROPS.name}.dvc")
    if not tracked.exists():
        return
    cure = f"run `dvc pull {tracked}` first, or delete {tracked} to begin anew."
    try:
        listed = dvc.call("list", ".", DROPS.as_posix(), "--dvc-only").split()
    except UserError as error:
        raise UserError(f"{tracked}: the drops that it lists are not here ({error}); {cure}") from None
    with _alone():
        missing = [name for name in listed if not (DROPS / name).is_dir()]
    if missing:
        raise UserError(f"{DROPS}: {', '.join(missing)} missing, though {tracked} lists it; {cure}")


def _recover(drops: Path) -> None:
    for left in drops.glob(".*.partial"):
        shutil.rmtree(left)
    for left in drops.glob(".*.old"):
        kept = left.with_name(left.name[1:].removesuffix(".old"))
        if kept.exists():
            shutil.rmtree(left)
        else:  # killed between the two renames of `replace_folder`
            left.rename(kept)


if __name__ == "__main__":
    sys.exit(main())
