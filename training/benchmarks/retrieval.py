"""COCO (5,000 pictures) and Flickr30k (1,000): from a picture to its captions and back, on the Karpathy test splits.

TR@K, picture to text: one of the picture's five captions is among the first K. IR@K, text to picture: its one picture
is. Each is the plain mean over its queries; `mean` is that of all six. Captions are taken as the files have them.

The scorers of the ALBEF family put the later of two equal scores first: "(official)". They also have a matching head
score the first k_test candidates of the cosine anew, the rest staying behind: "(re-ranked)". That is done for models
that have such a head, which the exam gives as `matcher`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture
from training.official.files import field, find, read, read_json
from training.official.recall import mean_of, ranks_later_first, recalls
from training.official.scoring import OFFICIAL, means
from training.ranking import BLOCK, TIE, ranks

CAPTIONS = 5  # a few pictures of COCO have six
RERANKED = " (re-ranked)"
MULTI30K = "test_2016_images.txt", *(f"test_2016.{number}.en" for number in range(1, CAPTIONS + 1))
COCO_JSON, FLICKR_JSON = "coco_karpathy_test.json", "flickr30k_test.json"

SCHEMA = pa.schema({"item_id": pa.string(), "group": pa.int64(), "picture": pa.string(), "text": pa.string()})
Captioned = Iterator[tuple[str, str, list[str]]]  # where it stands, picture, captions
Vectors = npt.NDArray[np.float32]
Matcher = Callable[[list[Picture], list[str]], Vectors]
Integers = npt.NDArray[np.int64]


def load_coco(folder: Path) -> pa.Table:
    """Queries of COCO, from the JSON of the ALBEF family. Raises `UserError`."""
    return _queries((where, f"coco/{image}", texts) for where, image, texts in _json(folder, COCO_JSON))


def load_flickr(folder: Path) -> pa.Table:
    """Queries of Flickr30k, from the JSON of the ALBEF family, else from the files of Multi30K. Raises `UserError`."""
    found = _json(folder, FLICKR_JSON) if find(folder, FLICKR_JSON) else _multi30k(folder)
    return _queries((where, f"flickr30k/{image.rsplit('/', 1)[-1]}", texts) for where, image, texts in found)


def _json(folder: Path, path: str) -> Captioned:
    entries = read_json(folder, path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{folder / path}: is no list of pictures. Fetch the official file again.")
    for number, entry in enumerate(entries):
        where = f"{folder / path}: entry {number}"
        yield where, field(entry, "image", str, where), field(entry, "caption", list, where)


def _multi30k(folder: Path) -> Captioned:
    """Line i of every file belongs to picture i."""
    images, *captions = (read(folder, path).decode("utf-8").strip().splitlines() for path in MULTI30K)
    for path, lines in zip(MULTI30K[1:], captions, strict=True):
        if len(lines) != len(images):
            raise UserError(
                f"{folder / path}: has {len(lines)} lines, but {MULTI30K[0]} names {len(images)} pictures. "
                "Fetch the official files again."
            )
    for number, (image, texts) in enumerate(zip(images, zip(*captions, strict=True), strict=True), start=1):
        yield f"{folder / MULTI30K[0]}: line {number}", image.strip(), [text.strip() for text in texts]


def _queries(captioned: Captioned) -> pa.Table:
    """One row per picture, then one per caption; `text` is empty for a picture."""
    found: dict[str, list[str]] = {}
    for where, picture, texts in captioned:
        if picture in found:
            raise UserError(f"{where}: {picture} occurs twice. Fetch the official file again.")
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{where}: field `caption` holds no text, or an empty one. Fetch the official file again.")
        found[picture] = texts[:CAPTIONS]
    rows = [(picture, group, picture, "") for group, picture in enumerate(found)] + [
        (f"{picture} {number}", group, picture, text)
        for group, (picture, texts) in enumerate(found.items())
        for number, text in enumerate(texts)
    ]
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def score(name: str, k_test: int, items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of TR@K and IR@K; detail: the rank of the best right candidate."""
    of_text = items.filter(pc.not_equal(items["text"], ""))
    of_picture = items.filter(pc.equal(items["text"], ""))
    paths, texts = of_picture["picture"].to_pylist(), of_text["text"].to_pylist()
    place = {path: number for number, path in enumerate(paths)}
    own = np.array([place[path] for path in of_text["picture"].to_pylist()])
    pairs = np.column_stack([own, np.arange(len(own))])
    pictures = [Picture(path) for path in paths]
    images, words = exam.images(pictures), exam.texts(texts)
    found = []
    sides = (("TR", of_picture, images, words, pairs), ("IR", of_text, words, images, pairs[:, ::-1]))
    for (metric, asked, queries, candidates, right), rank in zip(sides, ranks(images, words, pairs), strict=True):
        found += recalls(name, metric, asked, rank)
        found += recalls(name, metric, asked, ranks_later_first(queries, candidates, right), OFFICIAL)
        if matcher := getattr(exam, "matcher", None):
            match = functools.partial(_match, matcher, pictures, texts, metric == "IR")
            found += recalls(name, metric, asked, _reranked(queries, candidates, right, k_test, match), RERANKED)
    return pa.concat_tables(found)


def _match(
    matcher: Matcher, pictures: list[Picture], texts: list[str], turned: bool, query: Integers, candidate: Integers
) -> Vectors:
    image, text = (candidate, query) if turned else (query, candidate)
    return matcher([pictures[place] for place in image], [texts[place] for place in text])


def _reranked(
    queries: Vectors, candidates: Vectors, pairs: Integers, k_test: int, match: functools.partial[Vectors]
) -> Integers:
    """Pessimistic ranks (Q,) after `match` has scored each query's first `k_test`; past those all stand level, last."""
    k = min(k_test, len(candidates))
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ candidates.T
        rows = np.arange(len(scores))
        right = np.zeros(scores.shape, dtype=bool)
        here = pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < start + len(scores))]
        right[here[:, 0] - start, here[:, 1]] = True
        first = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        fits = match(np.repeat(rows + start, k), first.ravel()).reshape(first.shape)
        known = np.take_along_axis(right, first, axis=1)
        best = np.where(known, fits, -np.inf).max(1, keepdims=True)
        ahead = ((fits >= best - TIE) & ~known).sum(1)
        found[rows + start] = 1 + np.where(known.any(1), ahead, (~right).sum(1))
    return found


def metrics(outcomes: pa.Table) -> Metrics:
    """TR@K, IR@K and the mean of the six, in each way of counting."""
    found = means(outcomes)
    for suffix in ("", OFFICIAL, RERANKED):
        if f"TR@1{suffix}" in found:
            found[f"mean{suffix}"] = mean_of(found, ("TR", "IR"), suffix)
    return found


COCO = Official(
    name="coco_retrieval",
    title="COCO 5k retrieval",
    ability="retrieval of pictures and texts",
    files=(File(COCO_JSON),),
    source="The Karpathy test split as JSON of the ALBEF family ([{image, caption: [...]}], CC-BY-4.0) is linked from "
    f"the README of github.com/salesforce/ALBEF: coco_test.json, to be renamed {COCO_JSON}.",
    pictures="coco/val2014 (cocodataset.org)",
    load=load_coco,
    score=functools.partial(score, "coco_retrieval", 256),
    metrics=metrics,
    headline="mean",
)
FLICKR = Official(
    name="flickr30k_retrieval",
    title="Flickr30k retrieval",
    ability=COCO.ability,
    files=(File(FLICKR_JSON, instead=MULTI30K[0]), *(File(path, instead=FLICKR_JSON) for path in MULTI30K)),
    source="Either flickr30k_test.json of the ALBEF family (linked from the README of github.com/salesforce/ALBEF) or, "
    "from data/task2 of github.com/multi30k/dataset, image_splits/test_2016_images.txt and raw/test_2016.{1..5}.en.gz "
    "(terms of Flickr30k: research).",
    pictures="flickr30k (on request: forms.illinois.edu/sec/229675)",
    load=load_flickr,
    score=functools.partial(score, "flickr30k_retrieval", 128),
    metrics=metrics,
    headline="mean",
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (COCO, FLICKR)}
