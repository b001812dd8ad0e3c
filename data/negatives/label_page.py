"""The page on which a person labels hard negatives: a photo, its caption and a negative, and three keys.

A server of the standard library on 127.0.0.1 and nowhere else. It answers only requests that name it as their host (no
other site can reach it through a person's browser), and takes labels only with the token that its own page carries.
"""

from __future__ import annotations

import hmac
import html
import json
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from data.negatives.audit import key_of
from data.negatives.labels import WORDS, append_label, read_labels

Row = Mapping[str, Any]
BODY_BYTES = 4096  # of one label
_STYLE = """
:root { color-scheme: light dark; font: 18px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
header { display: flex; gap: 1rem; align-items: center; } progress { flex: 1; height: .8rem; }
main { display: grid; grid-template-columns: minmax(12rem, 20rem) 1fr; gap: 2rem; margin-top: 1.5rem;
  align-items: start; }
@media (max-width: 44rem) { main { grid-template-columns: 1fr; } }
img { width: 100%; background: #fff; border: 1px solid #8884; border-radius: .4rem; }
blockquote { margin: .2rem 0 1.4rem; font-size: 1.25rem; overflow-wrap: anywhere; }
#negative { border-left: .35rem solid #b8561a; padding-left: .8rem; } #caption { padding-left: 1.15rem; }
small { opacity: .75; } button { font: inherit; padding: .6rem 1.1rem; margin: 0 .5rem .5rem 0; cursor: pointer; }
kbd { border: 1px solid currentColor; border-radius: .25rem; padding: 0 .35rem; margin-right: .4rem; }
[hidden] { display: none !important; }
[role=alert] { color: #c0392b; min-height: 1.5rem; } [aria-pressed=true] { outline: .2rem solid #2566a8; }
"""
_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const items = data.items, $ = id => document.getElementById(id);
let place = items.findIndex(item => !item.label), busy = false;
if (place < 0) place = items.length;
function show() {
  const done = items.filter(item => item.label).length;
  $("bar").max = items.length; $("bar").value = done; $("count").textContent = done + " of " + items.length;
  $("end").hidden = place < items.length; $("work").hidden = place >= items.length;
  if (place >= items.length) return;
  const item = items[place];
  $("photo").src = "/photo/" + item.key; $("caption").textContent = item.caption;
  $("negative").textContent = item.negative;
  for (const word of data.words) $(word).setAttribute("aria-pressed", item.label === word);
  if (place + 1 < items.length) new Image().src = "/photo/" + items[place + 1].key;
}
async function label(word) {
  if (busy || place >= items.length) return;
  busy = true; $("trouble").textContent = "";
  try {
    const answer = await fetch("/label", {method: "POST", headers: {"X-Token": data.token},
      body: JSON.stringify({key: items[place].key, label: word})});
    if (!answer.ok) throw new Error(await answer.text());
    items[place].label = word; place += 1; show();
  } catch (error) { $("trouble").textContent = "Not saved: " + error.message + " Try again."; }
  busy = false;
}
function back() { if (!busy && place > 0) { place -= 1; show(); } }
for (const word of data.words) $(word).onclick = () => label(word);
$("back").onclick = back;
document.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const word = data.words.find(word => word[0] === event.key.toLowerCase());
  if (word) label(word); else if (event.key === "ArrowLeft") back();
};
show();
"""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Label hard negatives</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style nonce="{nonce}">{style}</style>
<header><strong>Is it true of the photo?</strong><progress id="bar" aria-label="labelled"></progress>
<span id="count"></span></header>
<main id="work"><img id="photo" alt="photo of the product"><section>
<small>The shop says</small><blockquote id="caption"></blockquote>
<small>Could this be said of the photo as well?</small><blockquote id="negative"></blockquote>
<button id="true"><kbd>T</kbd>true</button><button id="false"><kbd>F</kbd>false</button>
<button id="unsure"><kbd>U</kbd>unsure</button><button id="back"><kbd>&larr;</kbd>back</button>
<p role="alert" id="trouble"></p>
<small>True: a customer who sees the photo could not object to the words. Labels of {who}; each is saved at once, so you
can stop at any time and go on later.</small></section></main>
<main id="end" hidden><p>All labelled. The labels enter the estimate with the next <code>dvc repro negatives</code>.</p>
</main><script type="application/json" id="data" nonce="{nonce}">{data}</script>
<script nonce="{nonce}">{script}</script></html>
"""


class Labelling:
    """What one session of labelling holds.

    Args:
        items: the negatives to show, in order, with row_id, caption and negative.
        photos: encoded photos by row id.
        path: the labels file.
        who: under whose name labels are saved.
    """

    def __init__(self, items: Sequence[Row], photos: Mapping[str, bytes], path: Path, who: str) -> None:
        self.path, self.who, self.token = path, who, secrets.token_urlsafe(16)
        self._items = {key_of(row): row for row in items}
        self._photos = photos
        self._said = {label.key: label.label for label in read_labels(path) if label.who == who}
        self._lock = Lock()

    @property
    def done(self) -> int:
        """How many of the items this person has labelled."""
        return len(self._items.keys() & self._said.keys())

    def __len__(self) -> int:
        return len(self._items)

    def page(self, nonce: str) -> str:
        """The page, with the items and this person's labels in it."""
        items = [
            {"key": key, "caption": row["caption"], "negative": row["negative"], "label": self._said.get(key)}
            for key, row in self._items.items()
        ]
        data = json.dumps({"items": items, "token": self.token, "words": WORDS}).replace("<", "\\u003c")
        return _PAGE.format(nonce=nonce, style=_STYLE, script=_SCRIPT, data=data, who=html.escape(self.who))

    def photo(self, key: str) -> bytes | None:
        """The photo of an item."""
        row = self._items.get(key)
        return self._photos.get(row["row_id"]) if row else None

    def save(self, body: bytes) -> str | None:
        """Save one label; None, or what is wrong with it."""
        try:
            said = json.loads(body)
            key, word = said["key"], said["label"]
        except (ValueError, TypeError, KeyError):
            return "not a label."
        if not isinstance(key, str) or key not in self._items or word not in WORDS:
            return "no such negative or label."
        with self._lock:
            try:
                append_label(self.path, self._items[key], word, self.who)
            except OSError as error:
                return f"{self.path}: {error.strerror}."
            self._said[key] = word
        return None


def make_server(labelling: Labelling, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page on 127.0.0.1, not yet serving; port 0 takes a free one."""

    class Handler(_Handler):
        session = labelling

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    session: Labelling
    timeout = 30  # seconds that a client may take over one request

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        photo = self.session.photo(path.removeprefix("/photo/")) if path.startswith("/photo/") else None
        if not self._is_local():
            self._answer(HTTPStatus.FORBIDDEN, b"not this host", "text/plain")
        elif path == "/":
            nonce = secrets.token_urlsafe(12)
            self._answer(HTTPStatus.OK, self.session.page(nonce).encode(), "text/html; charset=utf-8", nonce)
        elif photo is not None:
            self._answer(HTTPStatus.OK, photo, "image/png" if photo.startswith(b"\x89PNG") else "image/jpeg")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"no such page", "text/plain")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        token = self.headers.get("X-Token", "").encode()
        if not self._is_local() or not hmac.compare_digest(token, self.session.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, b"reload the page.", "text/plain")
        elif self.path != "/label" or not length.isdecimal() or int(length) > BODY_BYTES:
            self._answer(HTTPStatus.BAD_REQUEST, b"not a label.", "text/plain")
        else:
            trouble = self.session.save(self.rfile.read(int(length)))
            status = HTTPStatus.BAD_REQUEST if trouble else HTTPStatus.OK
            self._answer(status, (trouble or "saved").encode(), "text/plain; charset=utf-8")

    def _is_local(self) -> bool:
        port = self.connection.getsockname()[1]
        return self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, nonce: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
                         f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; frame-ancestors 'none'")  # fmt: skip
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line per photo would bury the address."""
