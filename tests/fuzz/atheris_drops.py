#!/usr/bin/env python
"""Coverage-guided fuzzing of drop reading: `python tests/fuzz/atheris_drops.py CORPUS... -max_total_time=600`.

libFuzzer looks for bytes that reach new branches of the readers, and adds them to the first CORPUS folder, which it
begins from. A crash is any exception but `UserError`, or a broken promise of `landing.attempt`; the input is then left
as crash-*. `-merge=1 SMALL CORPUS` keeps in SMALL the fewest inputs that reach all that CORPUS does; libFuzzer starts
this file again for that, so the environment's `python` must come first in PATH.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data"), str(ROOT / "tests" / "fuzz")]

with atheris.instrument_imports(include=["data", "tarfile", "PIL"], exclude=["data.negatives"]):
    from target import Target


def main() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        target = Target(Path(folder))
        corpus = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
        if corpus and not corpus.exists():
            corpus.mkdir(parents=True)
            for number, seed in enumerate(target.seeds()):
                (corpus / f"seed-{number}").write_bytes(seed)
        atheris.Setup(sys.argv, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
