"""Make Great Expectations' Data Docs pages stand alone: no network, no scripts, the same bytes for the same drop.

As built, the pages fetch their styles, scripts and logo from seven servers; without a network the index is blank. Here
they become a file for what the rules found, one for the rules, and two for drift where it was looked at. They open
anywhere.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

INDEX = "index.html"
PAGES = {"catalog": (INDEX, "suite.html"), "drift": ("drift.html", "drift-suite.html")}  # suite: results, expectations
TITLES = {"catalog": "Rules", "drift": "Drift against the last dataset"}

_NETWORK = re.compile(
    r"<(script|style|footer)\b.*?</\1>|<link\b[^>]*>|<img\b[^>]*>", re.DOTALL | re.IGNORECASE
)  # fmt: skip
_TIMES = re.compile(r"\d{8}T\d{6}\.\d{6}Z|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_LINK = re.compile(r'href="[./]*(?:index|expectations/(catalog|drift))\.html"')
_BODY = re.compile(r"<body\b[^>]*>")

_STYLE = """<style>
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: #1c2127; background: #fff }
.row { display: flex; flex-wrap: wrap } .container-fluid { padding: 0 1.5rem } .navbar { height: auto !important }
.col-12 { flex: 0 0 100%; max-width: 100% } .col-md-2 { flex: 0 0 15rem } .col-md-10 { flex: 1 1 40rem; min-width: 0 }
ol, ul { list-style: none; padding-left: 0 } .ge-breadcrumbs li { display: inline; margin-right: .75rem }
a { color: #1a5fb4; text-decoration: none } a:hover { text-decoration: underline }
table { border-collapse: collapse; margin: .5rem 0 } td, th { padding: .3rem .7rem; border-bottom: 1px solid #dde1e6 }
td, th { text-align: left; vertical-align: top } .alert, .card-header { background: #f2f4f7; padding: .4rem .7rem }
.fa-check-circle::before { content: "\\2713\\a0 passed"; color: #1b7f3b }
.fa-times::before { content: "\\2717\\a0 failed"; color: #b3261e } .text-danger { color: #b3261e }
.fa-exclamation-triangle::before { content: "! error"; color: #b3261e } i { font-style: normal; white-space: nowrap }
p.pages { padding: .4rem 1.5rem; margin: 0; display: flex; gap: 1.5rem }
.sticky { position: sticky; top: 1rem }
.show-scrollbars { overflow: auto; max-height: 22rem } a[data-toggle="collapse"] { display: none }
body:has(#option2:checked) tr:has(.hide-succeeded-validation-target-child) { display: none }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8eb; background: #16191d } .alert, .card-header { background: #22272e } a { color: #7db4ff }
  td, th { border-color: #39404a }
}
</style>"""


def stand_alone(site: Path, folder: Path) -> None:
    """Turn the site that Great Expectations built in `site` into two pages per suite in `folder`; delete the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    suites = [name for name in PAGES if any((site / "validations" / name).rglob("*.html"))]
    for name in suites:
        (result,) = (site / "validations" / name).rglob("*.html")
        for page, target in zip((result, site / "expectations" / f"{name}.html"), PAGES[name], strict=True):
            (folder / target).write_text(_page(page.read_text(encoding="utf-8"), suites), encoding="utf-8")
    shutil.rmtree(site)


def _page(text: str, suites: Sequence[str]) -> str:
    text = _NETWORK.sub("", text).replace("</head>", f"{_STYLE}\n</head>")
    text = _LINK.sub(lambda match: f'href="{PAGES[match[1]][1] if match[1] else INDEX}"', text)
    text = _TIMES.sub("see the record", text)
    links = " ".join(f'<a href="{PAGES[name][0]}">{TITLES[name]}</a>' for name in suites)
    text = _BODY.sub(lambda match: f"{match[0]}<p class=pages>{links}</p>", text, count=1)
    seen: dict[str, str] = {}
    return _UUID.sub(lambda match: seen.setdefault(match[0], f"id-{len(seen)}"), text)
