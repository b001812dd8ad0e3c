"""ARO: whether a model minds the order of relations, attributes and words (Yuksekgonul et al., ICLR 2023).

Formats and rules from mertyg/vision-language-models-are-bows. VG-Relation and VG-Attribution: a picture, **cut to the
box** that holds the relation, fits its caption better than the caption with the two things, or their attributes,
exchanged. Published are means over relations, without the 157 that are symmetric or rare, and over pairs of attributes
with at least 25 items; the mean over items differs by points. COCO-Order and Flickr30k-Order: the caption comes before
four shuffles of it (P@1). There the released code takes the first of equal scores, the caption: "(official)".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.official.files import field
from training.official.pairs import ACCURACY, BOXED, entries, likelihoods, pair_items, score_pairs, shared, words
from training.official.scoring import OFFICIAL, means, table
from training.official.word_order import FILE as OPTIONS
from training.official.word_order import options
from training.ranking import TIE

RELATIONS = frozenset((
    "above", "at", "behind", "below", "beneath", "in", "in front of", "inside", "on", "on top of", "to the left of",
    "to the right of", "under", "carrying", "covered by", "covered in", "covered with", "covering", "cutting", "eating",
    "feeding", "grabbing", "grazing on", "hanging on", "holding", "leaning against", "leaning on", "looking at",
    "lying in", "lying on", "parked on", "reflected in", "resting on", "riding", "sitting at", "sitting in",
    "sitting on", "sitting on top of", "standing at", "standing by", "standing in", "standing on", "surrounded by",
    "using", "walking in", "walking on", "watching", "wearing",
))  # fmt: skip
LEAST = 25  # items of a pair of attributes
MACRO, MICRO, P1, BLIND_P1 = "macro accuracy", "micro accuracy", "P@1", "blind P@1"
ORDER = pa.schema({
    "item_id": pa.string(), "group": pa.int64(), "picture": pa.string(), "options": pa.list_(pa.string(), 5),
})  # fmt: skip


# --- VG-Relation, VG-Attribution --------------------------------------------------------------------------------------


def load_vg(path: str, kind: Callable[[Any, str], str], folder: Path) -> pa.Table:
    """All items of a file, those that are not counted too; `kind` tells an entry's relation or attributes."""
    items = pair_items(_rows(folder, path, kind), BOXED)
    if not len(_counted(items["slice"].to_pandas())):
        raise UserError(f"{folder / path}: no relation or pair of attributes counts. Fetch the official file again.")
    return items


def _rows(folder: Path, path: str, kind: Callable[[Any, str], str]) -> Iterator[tuple[Any, ...]]:
    for number, entry in enumerate(entries(folder, path, list)):
        where = f"{folder / path}: entry {number}"
        x, y, w, h = (float(field(entry, f"bbox_{side}", (int, float), where)) for side in "xywh")
        if w <= 0 or h <= 0:
            raise UserError(f"{where}: field `bbox_w` or `bbox_h` is not positive. Fetch the official file again.")
        picture, texts = (
            words(entry, "image_path", where),
            (words(entry, f"{t}_caption", where) for t in ("true", "false")),
        )
        yield f"{number:05}", kind(entry, where), f"aro/images/{picture}", *texts, [x, y, x + w, y + h]


def relation(entry: Any, where: str) -> str:
    return words(entry, "relation_name", where)


def attributes(entry: Any, where: str) -> str:
    """The pair's name, as the released code writes it."""
    found = field(entry, "attributes", list, where)
    if len(found) != 2 or not all(isinstance(name, str) for name in found):
        raise UserError(f"{where}: field `attributes` is not two words. Fetch the official file again.")
    return f"{found[0]}_{found[1]}"


def _counted(slices: pd.Series) -> pd.Series:
    """The slices that count: kept relations, and pairs of attributes (which have `_`) with enough items."""
    counts = slices.value_counts()
    pairs = counts[counts.index.str.contains("_") & (counts >= LEAST)].index
    return slices[slices.isin(pairs) | slices.isin(RELATIONS)]


def vg_metrics(outcomes: pa.Table) -> Metrics:
    """The mean over relations or pairs of attributes, that over their items, and what the control shares."""
    rows = outcomes.filter(pc.equal(outcomes["metric"], ACCURACY))
    kept = set(_counted(rows["slice"].to_pandas()))
    counted = outcomes.filter(pc.is_in(outcomes["slice"], pa.array(sorted(kept), pa.string())))
    frame = counted.to_pandas()
    frame = frame[frame.metric == ACCURACY]
    macro = frame.groupby("slice").outcome.mean().mean()
    return {MACRO: float(100 * macro), MICRO: float(100 * frame.outcome.mean()), **shared(counted)}


# --- COCO-Order, Flickr30k-Order --------------------------------------------------------------------------------------


def load_order(path: str, pictures: str, folder: Path) -> pa.Table:
    """One item per caption of a list of pictures with captions, with its options. Raises `UserError`."""
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries(folder, path, list)):
        where = f"{folder / path}: entry {number}"
        image = words(entry, "image", where)
        picture = f"{pictures}/{image if pictures == 'coco' else image.rpartition('/')[2]}"
        for place, caption in enumerate(field(entry, "caption", list, where)):
            if not isinstance(caption, str) or not caption.strip():
                raise UserError(f"{where}: caption {place} is no text. Fetch the official file again.")
            rows.append({"item_id": f"{number:05}/{place}", "group": number, "picture": picture, "caption": caption})
    made = options(folder, [row.pop("caption") for row in rows])
    return pa.Table.from_pylist([{**row, "options": o} for row, o in zip(rows, made, strict=True)], schema=ORDER)


def score_order(name: str, items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of P@1 by both rules and of the control; detail: how far the caption is ahead of the best shuffle."""
    pictures = [Picture(path) for path in items["picture"].to_pylist()]
    columns = [list(column) for column in zip(*items["options"].to_pylist(), strict=True)]
    scores = np.stack([exam.match(pictures, column) for column in columns]).astype(np.float64)
    prior = np.stack(likelihoods(exam, *columns))
    ahead, guess = (values[0] - values[1:].max(0) for values in (scores, prior))
    return pa.concat_tables([
        table(name, P1, items, ahead > TIE, ahead),
        table(name, P1 + OFFICIAL, items, ahead >= 0, ahead),
        table(name, BLIND_P1, items, guess > TIE, guess),
    ])  # fmt: skip


def order_metrics(outcomes: pa.Table) -> Metrics:
    """P@1 over all captions, and what the text-only control shares."""
    return {**means(outcomes), **shared(outcomes, P1, BLIND_P1)}


def _vg(name: str, title: str, ability: str, path: str, kind: Callable[[Any, str], str]) -> Official:
    return Official(
        name=name,
        title=title,
        ability=ability,
        files=(File(path),),
        source=f"{path} (MIT), which github.com/mertyg/vision-language-models-are-bows fetches from Google Drive.",
        pictures="aro/images (the zip of GQA pictures that the same repository fetches)",
        load=functools.partial(load_vg, path, kind),
        score=functools.partial(score_pairs, name),
        metrics=vg_metrics,
        headline=MACRO,
        chance={MACRO: 50.0, MICRO: 50.0},
        constant={MACRO: 0.0, MICRO: 0.0},
    )


def _order(name: str, title: str, path: str, pictures: str, source: str) -> Official:
    return Official(
        name=name,
        title=title,
        ability="word order",
        files=(File(path), File(OPTIONS, needed=False)),
        source=f"{path}: {source}",
        pictures=f"{pictures} (cocodataset.org)" if pictures == "coco/val2014" else pictures,
        load=functools.partial(load_order, path, pictures.partition("/")[0]),
        score=functools.partial(score_order, name),
        metrics=order_metrics,
        headline=P1,
        chance={P1: 20.0},
        constant={P1: 100.0},
    )


_KARPATHY = "the Karpathy test captions in the JSON of github.com/salesforce/ALBEF."
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _vg("vg_relation", "ARO VG-Relation", "argument order of a relation", "visual_genome_relation.json", relation),
        _vg("vg_attribution", "ARO VG-Attribution", "which thing has which attribute",
            "visual_genome_attribution.json", attributes),
        _order("coco_order", "ARO COCO-Order", "coco_karpathy_test.json", "coco/val2014", _KARPATHY),
        _order("flickr30k_order", "ARO Flickr30k-Order", "flickr30k_test.json", "flickr30k", _KARPATHY),
    )
}  # fmt: skip
