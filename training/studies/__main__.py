"""Run studies, or take them up where they were stopped, and write their pages.

python -m training.studies                 all of them; finished runs are kept under runs/studies
python -m training.studies lincir          one
python -m training.studies --jobs 1        one run at a time; else one per core, each on one thread
python -m training.studies --report        only write the pages of what is finished

They need the starter catalog's dataset, negatives, corpus, suites and base model; `make studies` makes these first.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data import record, stage
from data.params import UserError, canonical_hash
from training.outcomes import SCHEMA
from training.studies import STUDIES, load, report
from training.studies.study import Run, Study, analyse

RUNS = Path("runs/studies")
INPUTS = tuple(Path("store") / name for name in ("dataset", "negatives", "corpus", "suites", "models/base"))
BINDING = b"binding"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"some of: {', '.join(STUDIES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: one per core)")
    parser.add_argument("--report", action="store_true", help="run nothing, only write the pages")
    args = parser.parse_args(argv)
    try:
        go(args.studies or list(STUDIES), args.report, max(1, args.jobs))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished runs are kept, and the same command goes on.", file=sys.stderr)
        return 130
    return 0


def go(names: list[str], only_report: bool, jobs: int = 1) -> None:
    """Run what is missing of the studies `names`, `jobs` runs at a time, then write the page of each that is whole."""
    for name in names:
        if name not in STUDIES:
            raise UserError(f"study `{name}` is unknown; choose from {', '.join(STUDIES)}.")
    chosen = [load(name) for name in names]
    if not only_report:
        for folder in INPUTS:
            if not folder.is_dir():
                raise UserError(f"{folder}: not found. `make studies` makes it; or run `dvc repro`.")
        todo = [(study.name, run) for study in chosen for run in runs_of(study) if finished(study, run) is None]
        left = sum(load(name).seconds for name, _ in todo)
        stage.log(f"[studies] {len(todo)} runs to do, about {left / 60:.0f} minutes on two quiet cores")
        in_parallel(todo, jobs)
    for study in chosen:
        tables = {run: finished(study, run) for run in runs_of(study)}
        whole = {run: table for run, table in tables.items() if table is not None}
        if len(whole) == len(tables):
            report.write(study, analyse(study, whole))
            stage.log(f"[studies] {report.DOCS / study.name}.md")
        else:
            stage.log(f"[studies] {study.name}: {len(tables) - len(whole)} of {len(tables)} runs are missing, no page")
    report.write_readme([load(name) for name in STUDIES if (report.DOCS / f"{name}.json").is_file()])


def runs_of(study: Study) -> list[Run]:
    """Every run of a study, seed by seed: a stopped study has whole seeds to look at."""
    return [(arm, seed) for seed in study.seeds for arm in study.arms]


def in_parallel(todo: list[tuple[str, Run]], jobs: int) -> None:
    """Perform runs in processes of one thread each: two runs side by side are sooner done than one on two threads.

    The first failure stops what has not begun, and is raised; what runs at that moment is finished and kept.
    """
    begun = time.monotonic()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _quiet_end) as pool:
        futures = {pool.submit(perform, name, run): (name, run) for name, run in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                name, (arm, seed) = futures[future]
                left = (time.monotonic() - begun) / count * (len(todo) - count) / 60
                stage.log(
                    f"[studies] {count} of {len(todo)}: {name}, {arm}, seed {seed} in {future.result():.0f} s; "
                    f"about {left:.0f} minutes left"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet_end() -> None:
    """A worker ends at once and without a word at Ctrl-C; the parent says what is kept."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def perform(name: str, run: Run) -> float:
    """One run of the study `name`, in seconds; its outcomes appear whole or not at all."""
    torch.set_num_threads(1)
    study, (arm, seed), begun = load(name), run, time.monotonic()
    outcomes = study.run(arm, seed).select(SCHEMA.names).cast(SCHEMA)
    path = outcomes_path(study, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(outcomes.replace_schema_metadata({BINDING: binding(study, run).encode()}), partial)
    partial.replace(path)
    return time.monotonic() - begun


def finished(study: Study, run: Run) -> pa.Table | None:
    """The outcomes of a run made of the present code, settings and inputs; None where there are none."""
    path = outcomes_path(study, run)
    if not path.is_file():
        return None
    table = pq.read_table(path)
    return table if (table.schema.metadata or {}).get(BINDING, b"").decode() == binding(study, run) else None


def outcomes_path(study: Study, run: Run) -> Path:
    """Where a run's outcomes lie."""
    return RUNS / study.name / f"{run[0].replace(' ', '_').replace('/', '-')}-{run[1]}.parquet"


def binding(study: Study, run: Run) -> str:
    """Hash of what decides a run's outcomes: its code files, the arm, the seed and the records of the inputs."""
    own = [Path(f"training/studies/{study.name}.py"), *map(Path, study.code)]
    files = [file for path in own for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    code = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    inputs = [record.read(folder).id for folder in INPUTS if folder.is_dir()]
    return canonical_hash({"study": study.name, "run": run, "code": code, "inputs": inputs})


if __name__ == "__main__":
    sys.exit(main())
