"""A workspace for the end-to-end test: the real stages with settings cut down in size, a slice of the starter."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from data import dvc, record

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("data", "training", "serving", "orchestration")
FILES = ("dvc.yaml", ".dvcignore", ".gitignore")


@dataclass(frozen=True)
class Workspace:
    """The folder of a workspace, and how its user works in it: one process per command, from its root."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> Workspace:
        root.mkdir(parents=True)
        for name in CODE:
            shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("starter", "__pycache__"))
        for name in FILES:
            shutil.copy(REPOSITORY / name, root / name)
        (root / ".tools").symlink_to(REPOSITORY / ".tools")
        settings = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
        settings["starter"]["base"]["align"] |= {"epochs": 4, "batch": 64, "warmup": 4, "threads": 1}
        settings["starter"]["trainer"] |= {"epochs": 2, "batch": 64, "warmup": 2, "checkpoint_every": 1, "threads": 1}
        methods = settings["starter"]["methods"]
        methods["negclip"]["trainer"] = {"epochs": 1, "batch": 32}
        methods["cma_clip"]["trainer"]["epochs"] = 1
        methods["lincir"]["steps"] = 4
        methods["lincir"]["trainer"]["batch"] = 64
        for name in ("syncmask", "simla"):
            methods[name]["queue"] = 64
            methods[name]["towers"] |= {"image_layers": 2, "text_layers": 2}
            methods[name]["trainer"] |= {"epochs": 1, "batch": 32, "warmup": 1, "frozen": ["text.trunk.words"]}
        methods["syncmask"] |= {"fusion_layer": 1, "fit_heads": 64}
        (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        dvc.call("init", "-q", cwd=root)
        return cls(root)

    def fittingroom(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "orchestration", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the user would; what it prints is captured, a failure is the caller's to judge."""
        environment = {**dvc.environment(), "OMP_NUM_THREADS": "1"}  # another test may have the other core
        environment.pop("FITTINGROOM_WORKSPACE", None)
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=1100
        )

    def repro(self, *targets: str) -> None:
        """Rebuild `targets` and what they need."""
        done = self.run(*dvc.command("repro"), *targets)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def json(self, *arguments: str) -> Any:
        done = self.fittingroom(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def read(self, path: str) -> Any:
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def drop(self, name: str, start: int, count: int) -> Path:
        """A drop of `count` products of the starter's first drop, from row `start` on, in the starter's own form."""
        source = REPOSITORY / "data" / "starter" / "drop-1"
        folder = self.root / "inbox" / name
        folder.mkdir(parents=True)
        with (source / "catalog.csv").open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = [row for i, row in enumerate(reader) if start <= i < start + count]
            header = list(reader.fieldnames or [])
        with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, header, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        for shard in sorted({row["shard"] for row in rows if row["shard"]}):
            table = pq.read_table(source / shard)
            wanted = pa.array([row["id"] for row in rows])
            pq.write_table(table.filter(pc.is_in(table["id"], value_set=wanted)), folder / shard)
        return folder.relative_to(self.root)


def tree(root: Path) -> dict[str, str]:
    """Every file below `root` with the hash of its content: what 'nothing changed' means."""
    return {str(file.relative_to(root)): record.hash_file(file) for file in record.files_below(root)}
