"""Create or repair the three environments from the pinned files beside this one. Standard library only.

    python3.11 env/setup.py              make what is missing; a set-up that is done costs milliseconds
    python3.11 env/setup.py --renew main resolve env/main.in afresh and rewrite env/main.txt

An environment is complete when its stamp, written last, matches its pinned file. Without a stamp it was interrupted and
is made again from nothing; with another stamp it is brought up to date in place.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = {"main": ROOT / ".venv", "dvc": ROOT / ".tools" / "dvc", "triton": ROOT / ".tools" / "triton"}
STAMP = "fittingroom-stamp"
VERSION = "1"  # raise to make every environment again


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", choices=ENVIRONMENTS, help="resolve env/NAME.in afresh and rewrite env/NAME.txt")
    args = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        print(f"error: Python 3.11 is needed, this is {sys.version.split()[0]}. Try: make PYTHON=python3.11 ...")
        return 2
    (ROOT / ".tools").mkdir(exist_ok=True)
    with (ROOT / ".tools" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits, then finds the work done
        return renew(args.renew) if args.renew else set_up()


def set_up() -> int:
    todo = [name for name, folder in ENVIRONMENTS.items() if read_stamp(folder) != wanted_stamp(name)]
    if not todo:
        return 0
    print(f"setting up {', '.join(todo)} (about 7 GB and some minutes the first time) ...", flush=True)
    started = time.monotonic()
    running = {name: start_install(name) for name in todo}
    failed = [name for name, process in running.items() if process.wait()]
    wrap_dvc()
    for name in todo:
        if name not in failed:
            (ENVIRONMENTS[name] / STAMP).write_text(wanted_stamp(name))
            continue
        print(f"error: environment `{name}` failed; the last lines of {log_path(name).relative_to(ROOT)}:")
        print("".join(f"  {line}\n" for line in log_path(name).read_text().splitlines()[-8:]), end="")
    print(f"environments {'incomplete' if failed else 'ready'} after {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def start_install(name: str) -> subprocess.Popen[bytes]:
    """Begin installing one environment in the background; what pip says goes to its log."""
    folder = ENVIRONMENTS[name]
    if read_stamp(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
    (folder / STAMP).unlink(missing_ok=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    steps = [[*pip, "-r", str(requirements(name))], [python, "-m", "pip", "check"]]
    if name == "main":
        steps.append([*pip, "--no-build-isolation", "--editable", str(ROOT)])
    script = " && ".join(" ".join(f"'{word}'" for word in step) for step in steps)
    with log_path(name).open("wb") as log:
        return subprocess.Popen(["/bin/sh", "-c", script], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


def wrap_dvc() -> None:
    """`.venv/bin/dvc`: one command for users. Stages are `python -m ...`: this environment's python must come first."""
    folder = ENVIRONMENTS["main"] / "bin"
    target = os.path.relpath(ENVIRONMENTS["dvc"] / "bin" / "dvc", folder)
    wrapper = folder / "dvc"
    wrapper.unlink(missing_ok=True)
    wrapper.write_text(
        f'#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\nPATH="$here:$PATH" exec "$here/{target}" "$@"\n'
    )
    wrapper.chmod(0o755)


def renew(name: str) -> int:
    """Resolve `NAME.in` in a fresh environment and write down everything it brought."""
    scratch = ROOT / ".tools" / f"renew-{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    venv.create(scratch, with_pip=True, symlinks=True)
    pip = [str(scratch / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "-r", str(requirements(name).with_suffix(".in"))], check=True)
    frozen = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    kept = [line for line in frozen.splitlines() if not line.startswith("pip==")]
    header = requirements(name).read_text().splitlines()[:2]
    requirements(name).write_text("\n".join([*header, *kept]) + "\n")
    shutil.rmtree(scratch)
    return 0


def requirements(name: str) -> Path:
    return ROOT / "env" / f"{name}.txt"


def log_path(name: str) -> Path:
    return ROOT / ".tools" / f"setup-{name}.log"


def wanted_stamp(name: str) -> str:
    """What the environment was made from: the pinned file, the interpreter, the place (scripts hold absolute paths)."""
    parts = [VERSION, sys.version, str(ENVIRONMENTS[name]), requirements(name).read_text()]
    if name == "main":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        parts.append(repr((project["project"], project["tool"]["setuptools"])))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamp(folder: Path) -> str | None:
    """The stamp of a finished environment whose interpreter is still there; None otherwise."""
    stamp = folder / STAMP
    return stamp.read_text() if stamp.is_file() and (folder / "bin" / "python").exists() else None


if __name__ == "__main__":
    sys.exit(main())
