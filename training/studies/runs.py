"""Runs of studies: each is made once, in a process of its own, and kept until what it depends on changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data import record, stage
from data.params import canonical_hash
from training.outcomes import SCHEMA
from training.studies import load
from training.studies.processes import in_processes
from training.studies.study import Run, Study

RUNS = Path("runs/studies")
INPUTS = tuple(Path("store") / name for name in ("dataset", "negatives", "corpus", "suites", "models/base"))
BINDING = b"binding"
Job = tuple[str, Run]  # study, run


def runs_of(study: Study) -> list[Run]:
    """Every run of a study, seed by seed: a stopped study has whole seeds to look at."""
    return [(arm, seed) for seed in study.seeds for arm in study.arms]


def perform_all(todo: Sequence[Job], jobs: int) -> None:
    """Perform runs, `jobs` at a time in processes of one thread each, and say after each how long is left.

    Two runs side by side are sooner done than one on two threads. The first failure, or Ctrl-C, ends all of them; what
    they were in the middle of is made again.
    """
    begun, done, whole = time.monotonic(), 0.0, sum(load(name).seconds for name, _ in todo)
    made = ((job, perform(*job)) for job in todo) if jobs == 1 else in_processes(perform, todo, jobs)
    for count, ((name, (arm, seed)), seconds) in enumerate(made, 1):
        done += load(name).seconds
        left = (time.monotonic() - begun) / done * (whole - done) / 60
        stage.log(
            f"[studies] {count} of {len(todo)}: {name}, {arm}, seed {seed} in {seconds:.0f} s; "
            f"about {left:.0f} minutes left"
        )


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
    """Hash of what decides a run's outcomes: its code files, the arm, the seed, its data and the inputs' records."""
    own = [Path(f"training/studies/{study.name}.py"), *map(Path, study.code)]
    files = [file for path in own for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    code = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    data = [record.hash_file(path) if path.is_file() else None for path in study.data]
    inputs = [record.read(folder).id for folder in INPUTS if folder.is_dir()]
    return canonical_hash({"study": study.name, "run": run, "code": code, "data": data, "inputs": inputs})
