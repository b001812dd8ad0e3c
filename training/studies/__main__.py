"""Run studies, or take them up where they were stopped, and write their pages.

python -m training.studies                 all of them; finished runs are kept under runs/studies
python -m training.studies lincir          one
python -m training.studies --jobs 1        one run at a time; else one per core, each on one thread
python -m training.studies --report        only write the pages of what is finished

They need the starter catalog's dataset, negatives, corpus, suites and base model; `make studies` makes these first.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from data import stage
from data.params import UserError
from training.studies import STUDIES, load, report
from training.studies.runs import INPUTS, finished, perform_all, runs_of
from training.studies.study import analyse


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"some of: {', '.join(STUDIES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: one per core)")
    parser.add_argument("--report", action="store_true", help="run nothing, only write the pages")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        perform_all(todo, jobs)
    for study in chosen:
        tables = {run: finished(study, run) for run in runs_of(study)}
        whole = {run: table for run, table in tables.items() if table is not None}
        if len(whole) == len(tables):
            report.write(study, analyse(study, whole))
            stage.log(f"[studies] {report.DOCS / study.name}.md")
        else:
            stage.log(f"[studies] {study.name}: {len(tables) - len(whole)} of {len(tables)} runs are missing, no page")
    report.write_readme([load(name) for name in STUDIES if (report.DOCS / f"{name}.json").is_file()])


if __name__ == "__main__":
    sys.exit(main())
