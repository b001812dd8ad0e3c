"""How every stage runs: arguments, atomic output, record, progress, checks, and Dagster Pipes when launched by it.

def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)

def build(args: argparse.Namespace) -> None:
    params = section(DatasetConfig, "dataset")
    with stage.run("dataset", kind="dataset", command="python -m data.dataset", out=OUT, inputs=[DROPS],
                   parameters=params, force=args.force) as run:
        if run.up_to_date:
            return
        ...  # write files under run.out, tell run.log / run.progress / run.check / run.summary
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from data import record
from data.params import UserError, canonical

T = TypeVar("T")
Severity = Literal["critical", "warning", "info"]
EXAMPLES = 20  # offending rows named per check
HEARTBEAT = 5.0  # seconds between progress lines where there is no terminal


@dataclasses.dataclass
class Run:
    """What a running stage tells: files go under `out`, everything else into the record."""

    stage: str
    out: Path
    up_to_date: bool = False
    _summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    _checks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    _pictures: dict[str, str] = dataclasses.field(default_factory=dict)
    _tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    _facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def log(self, message: str) -> None:
        """One line for whoever watches: the terminal, and the Dagster run when there is one."""
        log(f"[{self.stage}] {message}")

    def summary(self, **numbers: Any) -> None:
        """Numbers (or short texts) of the record's summary; they must not depend on time or machine."""
        self._summary.update(canonical(numbers))

    def facts(self, **values: Any) -> None:
        """What may differ from run to run (rates, device, memory): kept beside the record, not in it."""
        self._facts.update(canonical(values))

    def check(
        self,
        name: str,
        passed: bool,
        *,
        severity: Severity,
        description: str,
        count: int = 0,
        examples: Sequence[str] = (),
        **metadata: Any,
    ) -> None:
        """One check of the output. `examples` are offending row or item ids, of which the first 20 are kept."""
        self._checks.append({
            "name": name, "passed": bool(passed), "severity": severity, "description": description,
            "count": int(count), "examples": [str(e) for e in examples[:EXAMPLES]], "metadata": canonical(metadata),
        })  # fmt: skip

    def picture(self, title: str, path: Path) -> None:
        """A picture under `out` that people look at (plots, contact sheets)."""
        self._pictures[title] = path.relative_to(self.out).as_posix()

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """A small table shown in the record, the terminal and the Dagster UI."""
        self._tables[title] = canonical(rows)

    def progress(self, items: Iterable[T], *, total: int | None = None, what: str = "items") -> Iterator[T]:
        """Iterate with a progress bar on a terminal, and a line every few seconds elsewhere."""
        return progress(items, total=total, what=what, label=self.stage)


@contextlib.contextmanager
def run(
    stage: str,
    *,
    kind: str,
    command: str,
    out: Path,
    inputs: Sequence[Path],
    parameters: Any,
    seeds: Mapping[str, int] | None = None,
    force: bool = False,
) -> Iterator[Run]:
    """Run a stage: `out` appears complete, with its record, or stays as it was.

    Args:
        stage: name as in dvc.yaml (`train@ce_clip`).
        kind: what the output is (drop, dataset, negatives, suites, model, evaluation, verdict, export).
        command: how a person runs it (`python -m training.train ce_clip`), without flags.
        out: the output folder. It is written under a temporary name beside it and renamed at the end.
        inputs: files and folders read; their hashes and record ids go into the record.
        parameters: a dataclass or mapping; goes into the record in canonical form.
        force: run even if `out` holds a record of the same inputs and parameters.
    """
    started = time.monotonic()
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    described = [record.describe_input(path) for path in inputs]
    identity = {
        "kind": kind, "stage": stage, "command": command, "inputs": described, "parameters": canonical(parameters),
    }  # fmt: skip
    if not force and _matches(out, identity):
        log(f"[{stage}] up to date: {_because(described)} and parameters match {out / record.RECORD}. "
            "Nothing to do (--force runs it anyway).")  # fmt: skip
        yield Run(stage=stage, out=out, up_to_date=True)
        return
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    current = Run(stage=stage, out=partial)
    try:
        yield current
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    made = record.Record(
        **identity, outputs=record.describe_outputs(partial),
        seeds=dict(seeds or {}), summary=current._summary, checks=current._checks,
        pictures=current._pictures, tables=current._tables,
    )  # fmt: skip
    (partial / record.RECORD).write_text(made.to_json(), encoding="utf-8")
    replace_folder(partial, out)
    seconds = round(time.monotonic() - started, 2)
    record.write_run_facts(
        made.id, {"stage": stage, "begun": begun, "seconds": seconds, **record.machine_facts(), **current._facts}
    )
    log(f"[{stage}] done in {seconds:.1f} s: {out} (record {made.id[:12]})")


def main(build: Callable[[argparse.Namespace], None], *, description: str | None, argv: Sequence[str] | None = None,
         arguments: Callable[[argparse.ArgumentParser], None] | None = None) -> int:  # fmt: skip
    """The `main()` of every stage: parse, open Pipes if launched by Dagster, turn a `UserError` into exit code 2."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="run even if the inputs and parameters are unchanged")
    if arguments:
        arguments(parser)
    args = parser.parse_args(argv)
    with pipes_session():
        try:
            build(args)
        except UserError as error:
            log(f"error: {error}")
            return 2
    return 0


def log(message: str) -> None:
    """Print a line to standard error, and send it to the Dagster run if there is one."""
    print(message, file=sys.stderr, flush=True)
    if _pipes is not None:
        _pipes.log.info(message)


def progress(items: Iterable[T], *, total: int | None = None, what: str = "items", label: str = "") -> Iterator[T]:
    """Iterate with a tqdm bar on a terminal; elsewhere log count, rate and expected end every five seconds."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=f" {what}", desc=label, leave=False)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= HEARTBEAT and done:
            rate = done / (now - started)
            rest = f" of {total}, {(total - done) / rate:.0f} s left" if total else ""
            log(f"[{label}] {done}{rest} {what}, {rate:.1f}/s")
            last = now
        yield item


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`, which may exist; a reader never sees a half-written folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


_pipes: Any = None


@contextlib.contextmanager
def pipes_session() -> Iterator[None]:
    """Open Dagster Pipes when launched under it; a light import otherwise avoided."""
    global _pipes
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as session:
        _pipes = session
        try:
            yield
        finally:
            _pipes = None


def _matches(out: Path, identity: Mapping[str, Any]) -> bool:
    try:
        found = json.loads((out / record.RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if any(found.get(key) != value for key, value in identity.items()):
        return False
    try:
        record.verify(out)
    except UserError:
        return False
    return True


def _because(described: list[dict[str, Any]]) -> str:
    return ", ".join(f"{item['path']} ({item['hash'][:12]})" for item in described) or "no inputs"
