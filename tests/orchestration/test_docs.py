"""The Data Docs server: the pages of landed drops, and nothing else of the workspace."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.params import UserError
from orchestration import docs


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "store" / "drops" / "abc123"
    (folder / "docs").mkdir(parents=True)
    report = {"name": "<b>spring", "drop_id": "abc123", "landed": 1, "rows": 1200, "quarantined": 3}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "docs" / "index.html").write_text("<p>found</p>", encoding="utf-8")
    (tmp_path / "params.yaml").write_text("secret", encoding="utf-8")
    running = docs.start(tmp_path)
    yield docs.address(running)
    running.shutdown()
    running.server_close()


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_list_names_drops_and_links_their_pages(address: str) -> None:
    status, page = get(f"{address}/")
    assert status == 200
    assert "<b>" not in page
    assert '<a href="/abc123/index.html">&lt;b&gt;spring</a>' in page
    assert get(f"{address}/abc123/index.html") == (200, "<p>found</p>")
    assert get(f"{address}/abc123") == (200, "<p>found</p>")


@pytest.mark.parametrize("path", [
    "abc123/drift.html", "abc123/report.json", "abc123/../../../params.yaml", "abc123/..%2f..%2fparams.yaml", "other",
    "../params.yaml", ".", "abc123/docs/index.html",
])  # fmt: skip
def test_nothing_else_is_served(address: str, path: str) -> None:
    assert get(f"{address}/{path}")[0] == 404


def test_an_unknown_drop_and_a_taken_port_are_said(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no single drop is called 'zzz'; there are abc123"):
        docs.docs("zzz", None, tmp_path)
    with pytest.raises(UserError, match="is in use"):
        docs.server(tmp_path, int(address.rpartition(":")[2]))
