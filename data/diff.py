"""What moved between two versions of a dataset: attributes, words, families, pictures, and the negatives made of them.

A and B are each a folder (a dataset, or one landed drop) or a git revision, whose dataset `dvc get` brings from the
cache. Where negatives/ and suites/ lie beside both datasets and were made of them, what moved in these is told as well.
A feature is said to have moved only if chance would hardly put two versions that far apart (data/diff_shifts.py).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data import dvc, record, stage
from data.dataset_rows import KEY, TEXT_COLUMNS, as_frame, leak_keys
from data.diff_pages import draw, markdown
from data.diff_shifts import Feature, Sides, many_hot, one_hot, shifts, words
from data.images import decode_rgb, grey_std, in_threads
from data.params import UserError, read_yaml
from data.splits import components, position
from data.statistics import ATTRIBUTES
from data.text import title_key, tokens

OUT = Path("runs/diff")
DATASET = "dataset"
MADE_OF_IT = ("negatives", "suites")  # folders beside a dataset
NONE = "(none)"
PICTURES = 3000  # pictures looked at, the same ones in both versions
BLANK = 8.0  # standard deviation of the grey values below which a picture is nearly blank
SHADES = 32  # grey values to one step of brightness
FAMILIES = 12  # families named
Page = dict[str, Any]


@dataclass(frozen=True)
class Version:
    """One version: how it is called, its folder, and its products with the columns of `TEXT_COLUMNS`."""

    name: str
    folder: Path
    rows: pd.DataFrame

    @property
    def pictures(self) -> Path:
        """A dataset keeps its pictures apart, a drop with its rows."""
        apart = self.folder / "images.parquet"
        return apart if apart.is_file() else self.folder / "products.parquet"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="a dataset's folder, a landed drop's folder, or a git revision")
    parser.add_argument("b", metavar="B", help="what it is compared with, likewise")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where diff.md, diff.json and diff.png go ({OUT})")
    args = parser.parse_args(argv)
    try:
        print(diff(args.a, args.b, args.out))
    except UserError as error:
        stage.log(f"error: {error}")
        return 2
    return 0


def diff(a: str, b: str, out: Path = OUT) -> str:
    """Compare two versions, write diff.md, diff.json and diff.png into `out`, and return the text of diff.md."""
    with tempfile.TemporaryDirectory() as fetched:
        one, other = (load(name, Path(fetched) / place) for name, place in ((a, "a"), (b, "b")))
        page = compare(one, other)
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        text = markdown(page)
        (partial / "diff.md").write_text(text, encoding="utf-8")
        (partial / "diff.json").write_text(json.dumps(page, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draw(partial / "diff.png", page)
        stage.replace_folder(partial, out)
    stage.log(f"[diff] {out / 'diff.md'} and {out / 'diff.png'}")
    return text


def load(name: str, fetched: Path) -> Version:
    """The version that `name` names: a folder, or a git revision whose outputs are brought into `fetched`."""
    folder = Path(name)
    if not folder.is_dir():
        folder = _fetch(name, fetched)
    path = folder / "products.parquet"
    try:
        present = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({error}). Name a dataset, a landed drop, or a revision.") from None
    missing = [column for column in TEXT_COLUMNS if column not in present and column != "catalog"]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}. Name a dataset, a landed drop, or a revision.")
    wanted = [column for column in (*TEXT_COLUMNS, "split") if column in present]
    rows = as_frame(pq.read_table(path, columns=wanted))
    if rows.empty:
        raise UserError(f"{path}: holds no product, so there is nothing to compare.")
    return Version(name, folder, rows)


def compare(one: Version, other: Version) -> Page:
    """Everything that diff.json says."""
    a, b = one.rows.set_index("row_id"), other.rows.set_index("row_id")
    rows = pd.concat([a, b[~b.index.isin(a.index)]])
    family = components(leak_keys(rows, {}))
    sides = Sides(rows.index.isin(a.index), rows.index.isin(b.index), family)
    titles = [title_key(title) if isinstance(title, str) else None for title in rows["title"]]
    told = many_hot("title words", "words", [dict.fromkeys((w.text for w in tokens(t or "")), 1.0) for t in titles])
    made, numbers = _made_of_them(one, other, rows.index)
    features = [*_attributes(rows), *_pictures(one, other, rows["image_key"].tolist()), *made]
    return {
        "a": one.name, "b": other.name, "products": _products(one.rows, other.rows), "shifts": shifts(features, sides),
        "words": words(told, sides), "families": _families(rows, sides), "numbers": numbers,
    }  # fmt: skip


def _attributes(rows: pd.DataFrame) -> list[Feature]:
    columns = ["catalog", *ATTRIBUTES]
    return [one_hot(name, "attribute", rows[name].astype("string").fillna(NONE).tolist()) for name in columns]


def _products(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """How many products there are, came, went, and changed though they stayed."""
    both = a.merge(b, on=KEY, suffixes=("_a", "_b"))
    found = {
        "a": len(a), "b": len(b), "added": len(b) - len(both), "removed": len(a) - len(both),
        "changed": int((both["row_id_a"] != both["row_id_b"]).sum()),
    }  # fmt: skip
    if "split_a" in both:  # drops have no splits
        found["other_split"] = int((both["split_a"] != both["split_b"]).sum())
    return found


def _families(rows: pd.DataFrame, sides: Sides) -> Page:
    """How many families came and went, and those whose share of the products changed most."""
    count = int(sides.family.max()) + 1
    a, b = (np.bincount(sides.family[held], minlength=count) for held in (sides.in_a, sides.in_b))
    change = b / b.sum() - a / a.sum()
    first = pd.Series(range(len(rows))).groupby(sides.family).first()
    named = [
        {"family": _name(rows.iloc[first[number]]), "a": int(a[number]), "b": int(b[number]),
         "change": round(float(change[number]), 4)}
        for number in sorted(np.flatnonzero(a != b), key=lambda number: (-abs(change[number]), number))[:FAMILIES]
    ]  # fmt: skip
    return {"a": int((a > 0).sum()), "b": int((b > 0).sum()), "new": int(((a == 0) & (b > 0)).sum()),
            "gone": int(((a > 0) & (b == 0)).sum()), "moved_most": named}  # fmt: skip


def _name(row: pd.Series) -> str:
    return next((row[name] for name in ("title", "derived_caption") if isinstance(row[name], str)), str(row["id"]))


def _pictures(one: Version, other: Version, keys: list[str]) -> list[Feature]:
    """Size, brightness and blankness of the pictures; the last two of a sample, always of the same keys."""
    sizes: dict[str, str] = {}
    looked: dict[str, tuple[str, str]] = {}
    sample = set(sorted(set(keys), key=position)[:PICTURES])
    for version in (one, other):
        source = pq.ParquetFile(version.pictures)
        column = "jpeg" if "jpeg" in source.schema_arrow.names else "image"
        for batch in source.iter_batches(512, columns=["image_key", "width", "height", column]):
            rows = batch.to_pydict()
            sizes |= {k: f"{w}x{h}" for k, w, h in zip(rows["image_key"], rows["width"], rows["height"], strict=True)}
            wanted = {k: data for k, data in zip(rows["image_key"], rows[column], strict=True)
                      if k in sample and k not in looked}  # fmt: skip
            looked |= dict(zip(wanted, in_threads(_look, list(wanted.values())), strict=True))
    return [
        one_hot("picture size", "picture", [sizes.get(key) for key in keys]),
        one_hot("picture brightness", "picture", [looked[key][0] if key in looked else None for key in keys]),
        one_hot("blank pictures", "picture", [looked[key][1] if key in looked else None for key in keys]),
    ]


def _look(image: bytes) -> tuple[str, str]:
    picture = decode_rgb(image)
    step = int(np.asarray(picture.convert("L")).mean()) // SHADES * SHADES
    return f"{step:03d}-{step + SHADES - 1:03d}", "blank" if grey_std(picture) < BLANK else "not blank"


def _made_of_them(one: Version, other: Version, row_ids: pd.Index) -> tuple[list[Feature], list[Page]]:
    """Features of the negatives, and the numbers of the records of what was made of both datasets."""
    features: list[Feature] = []
    numbers = _numbers(DATASET, one.folder, other.folder)
    for what in MADE_OF_IT:
        folders = [version.folder.parent / what for version in (one, other)]
        if not all(_is_made_of(folder, v.folder) for folder, v in zip(folders, (one, other), strict=True)):
            continue
        numbers += _numbers(what, *folders)
        if what == "negatives":
            features += _edits(folders, row_ids)
    return features, numbers


def _is_made_of(folder: Path, dataset: Path) -> bool:
    """Whether a folder's record names this dataset's record as its input."""
    try:
        made, source = record.read(folder), record.read(dataset)
    except UserError:
        return False
    if any(item["record"] == source.id for item in made.inputs):
        return True
    stage.log(f"[diff] {folder} was made of another dataset than {dataset}; left out. Run `dvc repro {folder.name}`.")
    return False


def _edits(folders: Sequence[Path], row_ids: pd.Index) -> list[Feature]:
    """Negatives by edit type and by edit; a product that both versions hold counts what the second made of it."""
    counted: dict[str, dict[str, Counter[str]]] = {"edit_type": {}, "edit": {}}
    for folder in folders:
        table = pq.read_table(folder / "negatives.parquet", columns=["row_id", *counted])
        for name, by_row in counted.items():
            fresh: dict[str, Counter[str]] = {}
            for row_id, value in zip(table["row_id"].to_pylist(), table[name].to_pylist(), strict=True):
                fresh.setdefault(row_id, Counter())[value] += 1
            by_row |= fresh
    titles = {"edit_type": "negatives by edit type", "edit": "negatives by edit"}
    return [
        many_hot(titles[name], "negatives", [by_row.get(row, {}) for row in row_ids])
        for name, by_row in counted.items()
    ]  # fmt: skip


def _numbers(what: str, *folders: Path) -> list[Page]:
    """The numbers of two records' summaries side by side."""
    try:
        a, b = (record.read(folder).summary for folder in folders)
    except UserError:
        return []
    return [
        {"of": what, "number": name, "a": a[name], "b": b[name], "change": round(b[name] - a[name], 4)}
        for name in a if name in b and all(isinstance(side[name], (int, float)) for side in (a, b))
    ]  # fmt: skip


def _fetch(revision: str, folder: Path) -> Path:
    """Bring a revision's dataset, and what was made of it, from DVC's cache."""
    if not re.fullmatch(r"[\w./~^@{}-]+", revision) or revision.startswith("-"):
        raise UserError(f"{revision}: neither a folder nor a git revision. Name one of them.")
    done = subprocess.run(["git", "show", f"{revision}:./dvc.lock"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"{revision}: neither a folder nor a git revision with a dvc.lock. `git log dvc.lock` lists those."
        )
    stages = (read_yaml(done.stdout) or {}).get("stages", {})
    outs = {out["path"] for made in stages.values() for out in made.get("outs", ())}
    if f"store/{DATASET}" not in outs:
        raise UserError(f"{revision}: its dvc.lock has no store/{DATASET}. `git log dvc.lock` lists other revisions.")
    for what in (DATASET, *MADE_OF_IT):
        if f"store/{what}" in outs:
            folder.mkdir(parents=True, exist_ok=True)
            dvc.call("get", ".", f"store/{what}", "--rev", revision, "--out", str(folder / what))
    return folder / DATASET


if __name__ == "__main__":
    sys.exit(main())
