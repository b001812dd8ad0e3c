"""What the README promises exists: its make targets, commands, files and the graph it draws."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from orchestration import stages
from orchestration.cli import _parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_targets_exist() -> None:
    promised = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert promised >= {"demo", "test", "up"}
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert promised <= set(re.findall(r"make ([a-z]+)", told))


def test_commands_parse() -> None:
    commands = re.findall(r"`fittingroom ([^`]+)`", README)
    assert len(commands) >= 7
    for command in commands:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        assert _parser().parse_args(words).run, command


def test_files_of_the_tree_exist() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    folder, missing = "", []
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
            continue
        names = re.findall(r"(?:^|\s)([a-z_]+(?:\.py|/))(?=\s|$)", line)
        missing += [folder + name for name in names if not (ROOT / folder / name).exists()]
    assert not missing


def test_the_drawn_graph_is_the_one_of_dvc_yaml() -> None:
    drawn = set(re.findall(r"\w+\[\"?([a-z]+/[^\]\"]+)", README.split("```mermaid")[1].split("```")[0]))
    expanded = {name for label in drawn for name in _expand(label)}
    assets = {stage.asset for stage in stages.read(ROOT).stages.values()}
    assert expanded == assets | {"catalog/drops", "production/search"}


def _expand(label: str) -> list[str]:
    found = re.fullmatch(r"(.*)\{(.*)\}", label)
    return [found[1] + part.strip() for part in found[2].split(",")] if found else [label]
