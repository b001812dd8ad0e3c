"""FashionIQ: a garment's photo and two captions, to the photo of the garment they describe (validation split).

Wu et al., CVPR 2021; files of XiaoxiaoGuo/fashion-iq. Two protocols are in use, and their numbers do not compare:
`original` ranks all photos that the split lists for the garment's class, `VAL` (of the VAL paper) only those that are
reference or target of a query. The reference stays in the gallery. Captions lose ". ? ," and blanks at both ends, both
orders "c1 and c2" and "c2 and c1" are asked, and the two unit queries are averaged. Photos are padded to a ratio of at
most 1.25, as in the published zero-shot results. Means over classes count each once, however many its queries. The
published code orders equal scores as its sort happens to, so there is no official number for ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.composed import (
    WAYS,
    Gallery,
    by_type,
    distinct,
    each_way,
    entries,
    galleries,
    known,
    recalls,
    with_galleries,
)
from training.official.contract import Exam, File, Metrics, Official, Vectors
from training.official.files import field, read_json
from training.ranking import best_ranks

NAME = "fashioniq"
CLASSES = ("dress", "shirt", "toptee")
PROTOCOLS = ("original", "VAL")
AT = (10, 50)
PAD = 1.25
SPLIT = "image_splits/split.{}.val.json"
HASHES = {  # of the official files, commit f71b16c
    "captions/cap.dress.val.json": "d94382f6cb9d81d159480d9fa4230f450bb8470a29e7403187a07375f8afb966",
    "captions/cap.shirt.val.json": "b58cbf766edb326715caaa4152b738bb8143c07862b67a411a2f75b5733bd00b",
    "captions/cap.toptee.val.json": "275f8a588a86ace22cdaa9e75f0bccceddc555fe88375b44a03bce3af9d431b3",
    "image_splits/split.dress.val.json": "98400ef5b45bd759e9b969330da9973d9697fff615947857f22df5c3598c0fc5",
    "image_splits/split.shirt.val.json": "20c9bbfb87e9baec64edd7c650a33e3a804c560be0730579ef3e23cf6554177c",
    "image_splits/split.toptee.val.json": "984cadaebb22c1b0b2d72cf792e5454802385baad864de3d1fac31e54762ae7e",
}


def load(folder: Path) -> pa.Table:
    """Validation queries of the three classes: `class`, `reference`, `target`, `first` and `second` caption.

    `group` is the reference photo. The galleries "CLASS original" and "CLASS VAL" travel with the table.
    """
    rows: list[dict[str, str]] = []
    shown: dict[str, dict[str, str]] = {}
    for kind in CLASSES:
        asked = list(_queries(folder, kind, listed := _split(folder, kind)))
        rows += asked
        union = {row[side] for row in asked for side in ("reference", "target")}
        shown[f"{kind} original"] = listed
        shown[f"{kind} VAL"] = {name: path for name, path in listed.items() if name in union}
    groups = pc.dictionary_encode(pa.array([row["reference"] for row in rows])).indices.cast(pa.int64())
    return with_galleries(pa.Table.from_pylist(rows).append_column("group", groups), shown)


def _split(folder: Path, kind: str) -> dict[str, str]:
    """{name: path below the benchmarks folder} of every photo of a class."""
    path = SPLIT.format(kind)
    found = read_json(folder, path)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{folder / path}: is not a JSON list of photo names. Fetch the official file again.")
    distinct(found, str(folder / path))
    return {name: f"{NAME}/images/{name}.jpg" for name in found}


def _queries(folder: Path, kind: str, listed: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for number, (where, entry) in enumerate(entries(folder, f"captions/cap.{kind}.val.json")):
        reference, target = field(entry, "candidate", str, where), field(entry, "target", str, where)
        known(reference, "candidate", where, listed, folder / SPLIT.format(kind))
        known(target, "target", where, listed, folder / SPLIT.format(kind))
        captions = field(entry, "captions", list, where)
        if len(captions) != 2 or not all(isinstance(caption, str) for caption in captions):
            raise UserError(f"{where}: field `captions` is not two texts. Fetch the official file again.")
        first, second = (caption.strip(".?, ") for caption in captions)
        yield {
            "item_id": f"{kind}:{number}", "class": kind, "reference": reference, "target": target,
            "first": first, "second": second,
        }  # fmt: skip


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of R@10 and R@50 by both protocols, composed, by the photo alone and by the words alone."""
    shown = galleries(items)
    kinds = [kind for kind in CLASSES if kind in set(items["class"].to_pylist())]
    return pa.concat_tables([_score(items.filter(pc.equal(items["class"], kind)), kind, shown, exam) for kind in kinds])


def _score(items: pa.Table, kind: str, shown: Mapping[str, Mapping[str, str]], exam: Exam) -> pa.Table:
    gallery = Gallery(exam, shown[f"{kind} original"], PAD)
    targets, slices = items["target"].to_pylist(), [kind] * items.num_rows
    ranked = {protocol: gallery.at(list(shown[f"{kind} {protocol}"])) for protocol in PROTOCOLS}
    places = {protocol: {name: at for at, name in enumerate(shown[f"{kind} {protocol}"])} for protocol in PROTOCOLS}

    def outcomes(way: str, queries: Vectors) -> list[pa.Table]:
        tables = []
        for protocol in PROTOCOLS:
            right = [[places[protocol][target]] for target in targets]
            rank = best_ranks(queries, gallery.vectors[ranked[protocol]], right)
            tables += recalls(NAME, f"{way}{protocol}_R", items, rank, AT, slices)
        return tables

    return each_way(_queries_of(items, gallery), outcomes)


def _queries_of(items: pa.Table, gallery: Gallery) -> dict[str, Vectors]:
    """Queries (N, D) of each way to ask, both orders of the captions averaged."""
    references = items["reference"].to_pylist()
    pairs = list(zip(items["first"].to_pylist(), items["second"].to_pylist(), strict=True))
    one = gallery.queries(references, [f"{first} and {second}" for first, second in pairs])
    other = gallery.queries(references, [f"{second} and {first}" for first, second in pairs])
    return {way: merge(one[way], other[way]) for way in WAYS}


def merge(one: Vectors, other: Vectors) -> Vectors:
    """The unit vectors (N, D) between two queries each: normalised, averaged, normalised."""
    return _unit(_unit(one) + _unit(other))


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return unit


def metrics(outcomes: pa.Table) -> Metrics:
    """Recalls of each class, their unweighted mean over classes, and Avg: the mean of the mean R@10 and R@50."""
    found: Metrics = {}
    for metric, classes in by_type(outcomes).items():
        found |= {f"{metric} ({kind})": value for kind, value in classes.items()}
        found[f"{metric} (class mean)"] = float(np.mean(list(classes.values())))
    for start in [f"{way}{protocol}" for way in WAYS for protocol in PROTOCOLS]:
        recall = [found.get(f"{start}_R@{k} (class mean)") for k in AT]
        if None not in recall:
            found[f"{start}_Avg (class mean)"] = float(np.mean(recall))  # type: ignore[arg-type]
    return found


BENCHMARK = Official(
    name=NAME,
    title="FashionIQ val",
    ability="composed retrieval among garments",
    files=tuple(File(path, sha256) for path, sha256 in HASHES.items()),
    source="The official files are captions/ and image_splits/ of github.com/XiaoxiaoGuo/fashion-iq (CDLA).",
    pictures="The product photos, as fashioniq/images/ASIN.jpg (addresses in github.com/hongwang600/"
    "fashion-iq-metadata; some are dead, and the benchmark needs every photo of the validation splits).",
    asks="compose",
    load=load,
    score=score,
    metrics=metrics,
    headline="original_Avg (class mean)",
)
BENCHMARKS = {NAME: BENCHMARK}
