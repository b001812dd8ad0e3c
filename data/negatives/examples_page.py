"""A page of judged negatives for the browser: photo, caption, negative and verdict. One file that fetches nothing."""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.negatives.audit import Verdict, key_of
from data.negatives.meanings import stems
from data.negatives.witnesses import WITNESSES
from data.pictures import load_photos

Row = Mapping[str, Any]
TRUE, FALSE = 200, 12  # most examples shown of negatives that count as true, and of each edit's others
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; }
article { display: grid; grid-template-columns: 6rem 1fr; gap: .8rem; border: 1px solid #8884; border-radius: .5rem;
  padding: .7rem; } article.true { border-color: #c0392b; border-width: 2px; }
img { width: 6rem; background: #fff; } p { margin: 0 0 .4rem; overflow-wrap: anywhere; }
mark { background: #e98b4a55; color: inherit; } small { opacity: .75; } .true b { color: #c0392b; }
"""


def write_page(path: Path, verdicts: Sequence[Verdict], products: Mapping[str, Row], images: Path) -> None:
    """Write the page: first every negative that counts as true (at most 200), then some others of each edit.

    Args:
        verdicts: judged negatives.
        products: rows of the dataset by row id.
        images: the dataset's `images.parquet`.
    """
    true = [verdict for verdict in verdicts if verdict.true]
    parts = {f"Counted as true: {len(true):,} of {len(verdicts):,} judged": true[:TRUE]}
    by_edit: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if not verdict.true:
            by_edit[verdict.row["edit"]].append(verdict)
    for edit, found in sorted(by_edit.items()):
        shown = sorted(found, key=lambda verdict: key_of(verdict.row))[:FALSE]
        parts[f"{edit}: {len(shown)} of {len(found):,} counted as false"] = shown
    keys = {products[verdict.row["row_id"]]["image_key"] for found in parts.values() for verdict in found}
    photos = load_photos(images, keys)
    body = "\n".join(
        f"<h2>{html.escape(title)}</h2>\n<section>{''.join(_card(v, products, photos) for v in found)}</section>"
        for title, found in parts.items()
    )
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>Judged hard negatives</title><style>{_STYLE}</style><h1>Judged hard negatives</h1>\n{body}</html>\n",
        encoding="utf-8", errors="replace",
    )  # fmt: skip


def _card(verdict: Verdict, products: Mapping[str, Row], photos: Mapping[str, bytes]) -> str:
    row = verdict.row
    photo = photos[products[row["row_id"]]["image_key"]]
    kind = "png" if photo.startswith(b"\x89PNG") else "webp" if photo[8:12] == b"WEBP" else "jpeg"
    word = "true" if verdict.true else "false"
    by = "a person" if verdict.label is not None else "witnesses"
    why = "".join(
        f"<p><small>{name.replace('_', ' ')}: {html.escape(verdict.witnesses[name])}</small></p>"
        for name in WITNESSES if name in verdict.witnesses
    )  # fmt: skip
    return (
        f'<article class="{word}"><img alt="" src="data:image/{kind};base64,{base64.b64encode(photo).decode()}">'
        f"<div><p>{html.escape(row['caption'])}</p><p>{_marked(row['caption'], row['negative'])}</p>"
        f"<p><b>{word}</b> <small>by {by} · {html.escape(row['edit'])} · {html.escape(row['row_id'])}</small></p>{why}"
        "</div></article>"
    )


def _marked(caption: str, negative: str) -> str:
    """The negative with the words that the caption does not have set off."""
    known = set(stems(caption))
    words = (html.escape(word) if set(stems(word)) <= known else f"<mark>{html.escape(word)}</mark>"
             for word in negative.split())  # fmt: skip
    return " ".join(words)
