"""FashionGen: retrieval among 101 candidates and among all, and recognition of category and sub-category.

101 candidates: 1,000 products are drawn; beside each stand 100 others of its sub-category, filled up with any others
where it has fewer, and of each of the 101 one photo is drawn. From the photo to the text of its product (I2T) and back
(T2I). Five draws, averaged: made once with a fixed seed and stored (`training.official.fashiongen_draws`).
FashionViL draws photos, so that a product may stand there twice; here, as in FashionSAP, each candidate is a product.

All: every photo of the validation part to every text (I2T), and every text to every photo (T2I: any of the product's).

FashionSAP's scorer puts the right candidate last, where its sort lets it win every tie: "(official)". Among all, and in
FashionViL, ties go by a sort that is not defined.

Recognition: photo and text together; every photo is a sample. Beside it the text alone, which often names the class.
Macro-F1 is over all classes of the training and the validation part; one of which training shows none is never right.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.official.fashiongen import FILES, PICTURES, SOURCE, TRAIN_FILES, Product, products, training_products
from training.official.fashiongen_draws import FILE, NEGATIVES, draws
from training.official.recall import AT, mean_of, recalls
from training.official.recognition import choices, chosen, macro_f1
from training.official.scoring import OFFICIAL, means
from training.outcomes import cells
from training.ranking import BLOCK, TIE, ranks

NAME, LEVELS = "fashiongen", ("category", "subcategory")
SAMPLE, FULL = ("I2T-101 R", "T2I-101 R"), ("I2T R", "T2I R")
ACCURACY, TEXT_ONLY = "accuracy", "text-only accuracy"

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
ITEMS = pa.schema([
    ("item_id", pa.string()), ("group", pa.int64()), ("kind", pa.string()), ("text", pa.string()),
    ("photos", pa.list_(pa.string())), ("candidates", pa.list_(pa.int64())),
])  # fmt: skip


def load(folder: Path) -> pa.Table:
    """The products, each of their photos, and five draws of queries. Raises `UserError`.

    `photos` are a product's, or the one that is asked with, or one of each candidate. `candidates` are products by
    their number, the right one first; `text` stands with the product alone.
    """
    known = products(folder)
    if len(known) <= NEGATIVES:
        raise UserError(f"{folder}: lists {len(known)} products, too few for {NEGATIVES} wrong candidates.")
    rows: list[tuple[str, int, str, str, Sequence[str], Sequence[int]]]
    rows = [(f"product {product.name}", place, "product", product.text, product.photos, (place,))
            for place, product in enumerate(known)]  # fmt: skip
    rows += [(f"photo {photo}", place, "photo", "", (photo,), (place,))
             for place, product in enumerate(known) for photo in product.photos]  # fmt: skip
    owner = {photo: place for place, product in enumerate(known) for photo in product.photos}
    for number, lines in enumerate(draws(folder, known)):
        rows += [(f"draw {number} {known[owner[line[0]]].name}", owner[line[0]], f"draw {number}", "", line,
                  [owner[photo] for photo in line]) for line in lines]  # fmt: skip
    return pa.Table.from_arrays([pa.array(values) for values in zip(*rows, strict=True)], schema=ITEMS)


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of I2T and T2I, among 101 and among all; detail: the rank of the best right candidate."""
    asked = {kind: items.filter(pc.equal(items["kind"], kind)) for kind in ("product", "photo")}
    drawn = items.filter(pc.starts_with(items["kind"], "draw"))
    words = exam.texts(asked["product"]["text"].to_pylist())
    photos = [paths[0] for paths in asked["photo"]["photos"].to_pylist()]
    images = exam.images([Picture(photo) for photo in photos])
    pairs = np.column_stack([np.arange(len(photos)), asked["photo"]["group"].to_numpy()])
    i2t, t2i = ranks(images, words, pairs)
    found = recalls(NAME, FULL[0], asked["photo"], i2t) + recalls(NAME, FULL[1], asked["product"], t2i)
    place = {photo: number for number, photo in enumerate(photos)}
    lines = np.array(drawn["candidates"].to_pylist())
    shown = np.array([[place[photo] for photo in row] for row in drawn["photos"].to_pylist()])
    for name, queries, asks, candidates, stand in (
        (SAMPLE[0], images, shown[:, 0], words, lines), (SAMPLE[1], words, lines[:, 0], images, shown)
    ):  # fmt: skip
        house, theirs = _among(queries, asks, candidates, stand)
        found += recalls(NAME, name, drawn, house, slices=drawn["kind"].to_pylist())
        found += recalls(NAME, name, drawn, theirs, OFFICIAL, drawn["kind"].to_pylist())
    return pa.concat_tables(found)


def _among(queries: Vectors, asks: Integers, candidates: Vectors, stand: Integers) -> tuple[Integers, Integers]:
    """Ranks (N,) of the first of each row of `stand` (N, 101): where ties are lost, and where they are won."""
    lost, won = np.empty(len(asks), np.int64), np.empty(len(asks), np.int64)
    for start in range(0, len(asks), BLOCK):
        part = slice(start, start + BLOCK)
        scores = np.einsum("nd,nkd->nk", queries[asks[part]], candidates[stand[part]])
        lost[part] = 1 + (scores[:, 1:] >= scores[:, :1] - TIE).sum(1)
        won[part] = 1 + (scores[:, 1:] > scores[:, :1] + TIE).sum(1)
    return lost, won


def metrics(outcomes: pa.Table) -> Metrics:
    """R@K of both ways; `mean` is over ways and K, among all, and `mean-101` among 101, itself the mean of draws."""
    found = means(outcomes)
    found["mean"] = mean_of(found, FULL)
    for suffix in ("", OFFICIAL):
        found[f"mean-101{suffix}"] = mean_of(found, SAMPLE, suffix)
    return found


def load_level(level: str, folder: Path) -> pa.Table:
    """Photos of the validation part with their product's text and class; the schema tells all `classes`, and which of
    them training shows. Raises `UserError`."""
    found = _photos(products(folder), level)
    fitted = fit_items(folder)
    seen = sorted(set((found if fitted is None else fitted)["label"].to_pylist()))
    every = sorted({*seen, *found["label"].to_pylist()})
    return found.replace_schema_metadata({"classes": json.dumps(every), "seen": json.dumps(seen)})


def fit_items(folder: Path) -> pa.Table | None:
    """The training part for the head of the benchmark whose folder this is; None where it is not installed."""
    known = training_products(folder)
    return None if known is None else _photos(known, folder.name.removeprefix(f"{NAME}_"))


def _photos(known: Sequence[Product], level: str) -> pa.Table:
    rows = [
        (photo, place, [photo], product.text, getattr(product, level))
        for place, product in enumerate(known)
        for photo in product.photos
    ]
    names = ["item_id", "group", "pictures", "text", "label"]
    return pa.Table.from_arrays([pa.array(values) for values in zip(*rows, strict=True)], names=names)


def score_level(name: str, items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of accuracy, by photo and text and by text alone; detail: 1 + the chosen class, 0 if undecided."""
    classes, seen = (json.loads(items.schema.metadata[key]) for key in (b"classes", b"seen"))
    place = np.array([-1, *(classes.index(label) for label in seen)])  # the first is for what is undecided
    texts = items["text"].to_pylist()
    pictures = [Picture(paths[0]) for paths in items["pictures"].to_pylist()]
    found = []
    for metric, shown in ((ACCURACY, pictures), (TEXT_ONLY, [None] * len(texts))):
        picked, _ = choices(exam.classes(name, shown, texts, seen))
        found.append(chosen(name, metric, items, classes, place[picked + 1]))
    return pa.concat_tables(found)


def metrics_level(outcomes: pa.Table) -> Metrics:
    """Accuracy and macro-F1 over photos, with the photo and without."""
    found = means(outcomes)
    for (_, metric), cell in cells(outcomes).items():
        found[metric.replace("accuracy", "macro-F1")] = macro_f1(cell)
    return found


RETRIEVAL = Official(
    name=NAME,
    title="FashionGen retrieval",
    ability="retrieval of products by photo and text",
    files=(*FILES, File(FILE, needed=False)),
    source=SOURCE,
    pictures=PICTURES,
    load=load,
    score=score,
    metrics=metrics,
    headline="mean-101",
    chance={f"{way}@{k}": 100 * k / (NEGATIVES + 1) for way in SAMPLE for k in AT},
    constant={f"{way}@{k}": 100.0 for way in SAMPLE for k in AT},
)
RECOGNITION = [
    Official(
        name=f"{NAME}_{level}",
        title=f"FashionGen {level} recognition",
        ability=f"{level} of a product by photo and text",
        files=(*FILES, *TRAIN_FILES),
        source=SOURCE,
        pictures=PICTURES,
        asks="head",
        load=functools.partial(load_level, level),
        score=functools.partial(score_level, f"{NAME}_{level}"),
        metrics=metrics_level,
        headline=ACCURACY,
        chance=dict.fromkeys((ACCURACY, TEXT_ONLY), 100 / count),
    )
    for level, count in zip(LEVELS, (48, 121), strict=True)
]
BENCHMARKS = {benchmark.name: benchmark for benchmark in (RETRIEVAL, *RECOGNITION)}
