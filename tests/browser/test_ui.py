"""An operator in the browser: the graph reads left to right, a click materializes a stage, its page shows what came."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workspace
from playwright.sync_api import Page, expect

from data import dvc, record
from orchestration.staleness import stale


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace.create(tmp_path_factory.mktemp("ui") / "toy")


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """`fittingroom up` in the workspace, as a person starts it; stopped by Ctrl-C, which leaves nothing behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration", "up"], cwd=root, env=workspace.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    printed = ""
    assert process.stdout is not None
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", printed)):
            line = process.stdout.readline()
            assert line, f"fittingroom up ended: {printed}"
            printed += line
        assert "7 output(s) made outside Dagster" in printed
        yield found.group()
    finally:
        process.terminate()
        assert process.wait(60) == 0


def ask(address: str, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def stale_in_the_ui(address: str) -> set[str]:
    nodes = ask(address, "{assetNodes {assetKey {path} staleStatus}}")["assetNodes"]
    return {"/".join(node["assetKey"]["path"]) for node in nodes if node["staleStatus"] != "FRESH"}


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_an_operator_changes_a_value_and_materializes_by_clicking(
    root: Path, address: str, browser: Page, tmp_path: Path
) -> None:
    browser.goto(f"{address}/asset-groups")
    boxes = [browser.get_by_text(group, exact=True).last for group in ("catalog", "models", "verdicts")]
    for box in boxes:
        expect(box).to_be_visible()
    lefts = [box.bounding_box()["x"] for box in boxes]  # type: ignore[index]
    assert lefts == sorted(lefts)
    browser.screenshot(path=tmp_path / "graph.png")
    assert stale_in_the_ui(address) == set()

    workspace.edit(root / "params.yaml", "lr: 0.003", "lr: 0.004")
    wait_until(lambda: stale_in_the_ui(address))  # `up` has the definitions loaded anew
    assert stale_in_the_ui(address) == {"models/ce_clip"}
    assert set(stale(root).direct) == {"train@ce_clip"}

    browser.goto(f"{address}/assets/models/ce_clip")
    browser.locator("button", has_text=re.compile("^Materialize$")).click()
    wait_until(lambda: stale_in_the_ui(address) == {"verdicts/ce_clip"})
    made = record.read(root / "store/models/ce_clip")
    expect(browser.get_by_text(made.id)).to_be_visible()
    runs = ask(address, "{runsOrError {... on Runs {results {runId status}}}}")["runsOrError"]["results"]
    assert [run["status"] for run in runs] == ["SUCCESS"]
    assert dvc.call("status", "train@ce_clip", cwd=root).strip().endswith("up to date.")

    browser.goto(f"{address}/assets/models/ce_clip")
    expect(browser.get_by_role("cell", name="1,000", exact=True).first).to_be_visible()  # the table
    plot = browser.get_by_role("img", name="loss")
    plot.scroll_into_view_if_needed()
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") == 320
    browser.screenshot(path=tmp_path / "metadata.png")

    browser.goto(f"{address}/assets/models/ce_clip?view=checks&checkDetail=rare")
    expect(browser.get_by_text("row-18, row-19")).to_be_visible()
    browser.screenshot(path=tmp_path / "check.png")
    browser.goto(f"{address}/runs/{runs[0]['runId']}")
    expect(browser.get_by_text("[ce_clip] done in").first).to_be_visible()
    browser.screenshot(path=tmp_path / "run.png")
