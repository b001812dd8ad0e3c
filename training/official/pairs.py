"""What the compositional benchmarks share: a picture with a caption and a foil, and the text-only control beside it.

Right is score(picture, caption) > score(picture, foil), strictly. The control chooses between the same texts without
a picture: where foils read less naturally than captions, it is right too, and what it shares with a model is no proof
of sight.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.params import UserError
from training.blind import BlindScorer
from training.official.contract import Exam, Metrics, Picture
from training.official.files import field, read_json
from training.official.scoring import Floats, percent, table
from training.outcomes import cells, column
from training.ranking import TIE

ACCURACY, BLIND = "accuracy", "blind accuracy"
SEEN, SHARED = "accuracy where blind fails", "successes shared with blind"
SCHEMA = pa.schema({
    "item_id": pa.string(), "group": pa.int64(), "slice": pa.string(), "picture": pa.string(),
    "caption": pa.string(), "foil": pa.string(),
})  # fmt: skip
BOXED = SCHEMA.append(pa.field("box", pa.list_(pa.float64(), 4)))  # left, top, right, bottom


def entries(folder: Path, path: str, kind: type) -> Any:
    """The JSON of a file, a `kind` (dict or list) with something in it. Raises `UserError`."""
    found = read_json(folder, path)
    if not isinstance(found, kind) or not found:
        raise UserError(f"{folder / path}: is not a {kind.__name__} of items. Fetch the official file again.")
    return found


def words(entry: Any, name: str, where: str) -> str:
    """The text `entry[name]`, which is not blank. Raises `UserError`."""
    text: str = field(entry, name, str, where)
    if not text.strip():
        raise UserError(f"{where}: field `{name}` is empty. Fetch the official file again.")
    return text


def pair_items(rows: Iterable[Sequence[Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Items from (item_id, slice, picture, caption, foil, ...); one picture's items are resampled together."""
    found = [dict(zip([name for name in schema.names if name != "group"], row, strict=True)) for row in rows]
    place = {path: number for number, path in enumerate(dict.fromkeys(row["picture"] for row in found))}
    return pa.Table.from_pylist([{**row, "group": place[row["picture"]]} for row in found], schema=schema)


def score_pairs(name: str, items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of `accuracy` and of the control's; detail: difference of the scores, of the log-likelihoods."""
    paths, slices = items["picture"].to_pylist(), items["slice"].to_pylist()
    boxes = map(tuple, items["box"].to_pylist()) if "box" in items.column_names else itertools.repeat(None)
    pictures = [Picture(path, box) for path, box in zip(paths, boxes)]  # noqa: B905 - no boxes repeat for ever
    captions, foils = items["caption"].to_pylist(), items["foil"].to_pylist()
    margin = exam.match(pictures, captions).astype(np.float64) - exam.match(pictures, foils)
    right, wrong = likelihoods(exam, captions, foils)
    return pa.concat_tables([
        table(name, ACCURACY, items, margin > TIE, margin, slices),
        table(name, BLIND, items, right - wrong > TIE, right - wrong, slices),
    ])  # fmt: skip


def likelihoods(exam: Exam, *columns: Sequence[str]) -> list[Floats]:
    """The text-only control's log-likelihood of each text of each column."""
    blind = BlindScorer(exam.training_texts())
    known = {text: blind.log_likelihood(text) for text in dict.fromkeys(itertools.chain(*columns))}
    return [np.array([known[text] for text in column], np.float64) for column in columns]


def shared(outcomes: pa.Table, metric: str = ACCURACY, blind: str = BLIND) -> Metrics:
    """The control's accuracy, the model's where the control fails, and the share of its successes that need no look.

    All over items (micro). A part without items is 0.
    """
    found = {name: cell for (_, name), cell in cells(outcomes).items()}
    ours, theirs = (column(found[name], "outcome") > 0 for name in (metric, blind))
    return {blind: percent(theirs), SEEN: _share(ours[~theirs]), SHARED: _share(theirs[ours])}


def _share(values: npt.NDArray) -> float:
    return percent(values) if len(values) else 0.0
