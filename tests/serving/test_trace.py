"""On a real server: what a promotion keeps; a live answer is traced to its rows, and a flipped byte is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from data import record
from orchestration import cli
from serving import lineage, registry
from serving.ask import ask
from serving.config import LINEAGE
from tests.serving import tiny


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = cli.main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_live_answer_is_traced_to_its_rows(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered = ask("red shirt", k=4)
    Path("answer.json").write_text(json.dumps({**dataclasses.asdict(answered), "picture": str(answered.picture)}))
    code, found = call(capsys, "trace", "answer.json")
    assert (code, found["breaks"]) == (0, [])
    assert (found["version"]["version"], found["version"]["alias"]) == (1, "champion")
    assert {r["kind"] for r in found["records"]} == {"export", "dataset", "model", "verdict"}
    assert answered.record == tiny.model_of("ce_clip")
    assert call(capsys, "trace", answered.record[:12])[1]["version"] == found["version"]
    assert found["rows"]["total"] == 60


def test_a_promotion_keeps_the_records_and_the_rows(live: Path) -> None:
    (version,) = lineage.versions("search")
    kept = LINEAGE / "search" / "1"
    assert version.facts["lineage"] == {
        "records": len(list((kept / "records").glob("*.json"))), "rows": record.hash_file(kept / "rows.parquet"),
    }  # fmt: skip
    assert {path.stem for path in (kept / "records").glob("*.json")} == {
        record.read(Path("store") / name).id
        for name in ("dataset", "models/ce_clip", "verdicts/ce_clip", "exports/ce_clip")
    }


def test_a_flipped_byte_of_what_is_served_is_named(live: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [Path("runs/serving") / name for name in ("models/search", "golden", "lineage")]
    files = [f for folder in folders for f in record.files_below(folder) if "__pycache__" not in f.parts]
    assert len(files) >= 12
    for path in (*files, registry.HISTORY, registry.ALIASES):
        before = path.read_bytes()
        middle = len(before) // 2
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        try:
            code, found = call(capsys, "trace", "search")
        finally:
            path.write_bytes(before)
        assert code == 1
        assert str(path) in {part["file"].split(" line ")[0] for part in found["breaks"]}
    assert call(capsys, "trace", "search")[0] == 0
