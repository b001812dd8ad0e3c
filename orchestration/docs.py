"""`fittingroom docs`: the Data Docs of landed drops in a browser, from this machine only.

Nothing but the pages that data/gx_docs.py wrote is served: `/` lists the drops, `/DROP/index.html` is a page. The
pages hold no scripts, and the headers forbid any.
"""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data.gx_docs import INDEX, PAGES
from data.params import UserError
from orchestration.stages import DROPS

HOST, PORT = "127.0.0.1", 3001
ADDRESS = "FITTINGROOM_DOCS"  # environment variable: where `fittingroom up` serves them, for links in the UI
NAMES = frozenset(name for pages in PAGES.values() for name in pages)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}  # fmt: skip


def docs(drop: str | None, port: int | None, root: Path) -> int:
    """Serve until Ctrl-C and print the address of a drop's pages (default: of the list). Returns 0.

    Raises `UserError` for an unknown drop, or a port that is taken.
    """
    found = {folder.name for folder, _ in landed(root)}
    chosen = [name for name in found if drop and name.startswith(drop)]
    if drop and len(chosen) != 1:
        raise UserError(f"no single drop is called {drop!r}; there are {', '.join(sorted(found)) or 'none'}.")
    with server(root, port) as running:
        page = f"{chosen[0]}/{INDEX}" if chosen else ""
        print(f"Data Docs are at {address(running)}/{page}  (Ctrl-C stops)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def start(root: Path) -> ThreadingHTTPServer:
    """Serve in a thread of this process until it ends or `shutdown` is called."""
    running = server(root, None)
    threading.Thread(target=running.serve_forever, name="data-docs", daemon=True).start()
    return running


def server(root: Path, port: int | None) -> ThreadingHTTPServer:
    """A server on `port`; without one on `PORT`, or a free one if that is taken. Raises `UserError` if it cannot."""

    class Handler(Pages):
        workspace = root

    for candidate in (PORT, 0) if port is None else (port,):
        try:
            return ThreadingHTTPServer((HOST, candidate), Handler)
        except OSError:
            continue
    raise UserError(f"port {port} is in use on {HOST}. Give another one: `fittingroom docs --port 3002`.")


def address(running: ThreadingHTTPServer) -> str:
    """`http://127.0.0.1:3001`"""
    return f"http://{HOST}:{running.server_address[1]}"


def landed(root: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """(folder, report) of every landed drop that has Data Docs, the last landed first."""
    reports = {path.parent: json.loads(path.read_text(encoding="utf-8"))
               for path in (root / DROPS).glob("[!.]*/report.json")}  # fmt: skip
    for folder in sorted(reports, key=lambda folder: -int(reports[folder].get("landed") or 0)):
        if (folder / "docs" / INDEX).is_file():
            yield folder, reports[folder]


class Pages(BaseHTTPRequestHandler):
    """Answers with a page, or 404; a path is only ever compared with known names."""

    workspace: Path

    def do_GET(self) -> None:
        """One page."""
        page = self._page()
        self.send_response(200 if page else 404)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        body = page or b"<p>There is no such page.</p>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: `fittingroom up` shares the terminal."""

    def _page(self) -> bytes | None:
        path = self.path.partition("?")[0].strip("/")
        if not path:
            return _list(self.workspace).encode()
        drop, _, name = path.partition("/")
        folders = {folder.name: folder for folder, _ in landed(self.workspace)}
        file = folders[drop] / "docs" / (name or INDEX) if drop in folders and (name or INDEX) in NAMES else None
        return file.read_bytes() if file and file.is_file() else None


def _list(root: Path) -> str:
    rows = [
        f'<tr><td><a href="/{folder.name}/{INDEX}">{html.escape(str(told["name"]))}</a><td>{folder.name}'
        f"<td>{told['rows']:,}<td>{told['quarantined']:,}"
        for folder, told in landed(root)
    ]
    head = "<tr><th>drop<th>id<th>rows<th>quarantined"
    style = "<style>body { font: 15px/1.5 system-ui; margin: 2rem } td, th { text-align: left; padding: .3rem }</style>"
    title = "<!DOCTYPE html><meta charset=utf-8><title>Data Docs</title>"
    return f"{title}{style}<h1>Data Docs of landed drops</h1><table>{head}{''.join(rows)}</table>"
