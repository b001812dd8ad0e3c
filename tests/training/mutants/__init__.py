"""The mistakes that the specifications name, as edits of the code: each must make a test fail.

Every module here has `MUTANTS`, a list of (file, text that stands there once, what to put in its place, pytest node
that must then fail). `test_mutants.py` makes each of them in a copy of the sources.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OWN = ("data", "training", "serving", "orchestration", "tests")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pandas", "pytest", "safetensors.torch", "timm", "tokenizers", "torch", "transformers"])


def run(folder: Path, *nodes: str) -> tuple[int, str]:
    """Exit code and output of pytest over `nodes` in a copy of the sources.

    In a process of its own, forked from one that has imported the libraries and nothing of this project: importing
    them takes longer than most of the tests.
    """
    log = folder / "log.txt"
    process = SERVER.Process(target=_pytest, args=(folder, nodes, log))
    process.start()
    process.join()
    return process.exitcode or 0, log.read_text(encoding="utf-8")


def _pytest(folder: Path, nodes: Sequence[str], log: Path) -> None:
    import pytest

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of the file before it
    sys.exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *nodes])))
