"""Run the benches, print one table, and write what was measured to perf/results/.

    python -m perf [names] [--smoke] [--threads 1]

Every bench (`perf/bench_<name>.py`, a function `run(smoke) -> list[Row]`) has a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from perf.bench import ROOT, Row

RESULTS = ROOT / "perf" / "results"
LIMIT = 600  # seconds for one bench
ON_REQUEST = ("compile",)  # only where named: compiling takes minutes on two busy cores


def names() -> list[str]:
    """Every bench there is."""
    return sorted(path.stem.removeprefix("bench_") for path in (ROOT / "perf").glob("bench_*.py"))


def machine() -> dict[str, object]:
    """What ratios depend on: processor, torch, threads, and how busy the machine is."""
    import torch

    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.exists() else None
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": found.group(1) if found else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": [round(value, 2) for value in os.getloadavg()],
        "commit": commit.stdout.strip(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def run_here(name: str, smoke: bool) -> None:
    """Run one bench in this process and write its result."""
    before = machine()
    rows: list[Row] = importlib.import_module(f"perf.bench_{name}").run(smoke)
    found = [{**dataclasses.asdict(row), "held": row.held} for row in rows]
    result = {**before, "load_after": round(os.getloadavg()[0], 2), "smoke": smoke, "rows": found}
    path(name, smoke).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def path(name: str, smoke: bool) -> Path:
    """Where the result of a bench lies."""
    return RESULTS / f"{name}{'-smoke' if smoke else ''}.json"


def run_apart(name: str, smoke: bool, threads: int) -> bool:
    """Run one bench in a process of its own; whether it came to an end."""
    command = [sys.executable, "-m", "perf", name, "--here", *(["--smoke"] if smoke else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    path(name, smoke).unlink(missing_ok=True)
    begun = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT)  # fmt: skip
        said, ended = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired:
        said, ended = f"longer than {LIMIT} s", False
    print(f"[perf] {name}: {time.monotonic() - begun:.0f} s", flush=True)
    if not ended:
        print("\n".join(said.splitlines()[-12:]), flush=True)
    return ended


def table(chosen: list[str], smoke: bool) -> str:
    """The results as one table of plain text."""
    lines = [("goal", "what", "ours", "peer", "", "unit", "ratio", "spread", "cpu", "floor", "held", "load", "check")]
    for name in chosen:
        if not path(name, smoke).exists():
            continue
        result = json.loads(path(name, smoke).read_text(encoding="utf-8"))
        for row in result["rows"]:
            least, greatest = row["spread"]
            sign = "<=" if row["at_most"] else ">="
            cpu = "" if row["cpu_ratio"] is None else f"{row['cpu_ratio']:.2f}"
            floor = "" if row["floor"] is None else f"{sign} {row['floor']:g}"
            lines.append((
                row["id"], row["what"], f"{row['ours']:.3g}", f"{row['theirs']:.3g}", row["peer"], row["unit"],
                f"{row['ratio']:.2f}", f"{least:.2f}-{greatest:.2f}", cpu, floor, "yes" if row["held"] else "NO",
                f"{result['load'][0]}-{result['load_after']}", row["check"],
            ))  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names())}; all but compile by default")
    parser.add_argument("--smoke", action="store_true", help="small sizes and few rounds, three minutes in all")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides (1 on a busy machine)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    chosen = args.names or [name for name in names() if name not in ON_REQUEST]
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        parser.error(f"no bench is called {unknown[0]}; there are {', '.join(names())}")
    RESULTS.mkdir(exist_ok=True)
    if args.here:
        run_here(chosen[0], args.smoke)
        return 0
    ended = [run_apart(name, args.smoke, args.threads) for name in chosen]
    found = machine()
    print(f"\n{found['cpu']}, {found['cores']} cores, {args.threads} thread(s), torch {found['torch']}\n")
    print(table(chosen, args.smoke))
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
