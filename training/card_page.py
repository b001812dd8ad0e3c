"""A model card's sections as markdown and as one HTML file that fetches nothing: pictures are part of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.reports import markdown_cell, visible

Rows = list[dict[str, Any]]
Block = str | Rows | Path | tuple[str, ...]  # a paragraph, a table, a picture in the card's folder, a list
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #8885; padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; } img { max-width: 100%; background: #fff; }
"""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; empty tables and lists are left out."""

    title: str
    blocks: Sequence[Block]


def markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The card as markdown; pictures are links to files beside it."""
    parts = [f"# {title}", f"**{lead}**"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [_as_markdown(block, section.title) for block in section.blocks if block]
    return "\n\n".join(parts) + "\n"


def page(title: str, lead: str, sections: Sequence[Section], folder: Path) -> str:
    """The card as one HTML page; pictures are read from `folder`."""
    body = "\n".join(
        f"<h2>{html.escape(section.title)}</h2>\n"
        + "\n".join(_as_html(block, section.title, folder) for block in section.blocks if block)
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style>\n"
        f"<h1>{_text(title)}</h1>\n<p><b>{_text(lead)}</b></p>\n{body}\n</html>\n"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a markdown table; columns in the order of the first row."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(markdown_cell(str(row[name])) for name in head)} |" for row in rows)])


def _as_markdown(block: Block, title: str) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Path):
        return f"![{title}]({block.name})"
    return table(block) if isinstance(block, list) else "\n".join(f"- {item}" for item in block)


def _as_html(block: Block, title: str, folder: Path) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    if isinstance(block, Path):
        content = base64.b64encode((folder / block).read_bytes()).decode()
        return f'<p><img alt="{html.escape(title)}" src="data:image/png;base64,{content}"></p>'
    if isinstance(block, tuple):
        return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block)}</ul>"
    head = "".join(f"<th>{_text(name)}</th>" for name in block[0])
    rows = "".join(f"<tr>{''.join(f'<td>{_text(row[name])}</td>' for name in block[0])}</tr>" for row in block)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _text(value: Any) -> str:
    return html.escape(visible(str(value)))
