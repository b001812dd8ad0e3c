"""What the recognition benchmarks share: the class a model chose, and scores of choices against the truth.

The house rule of a choice: a class is chosen if no other is as likely, up to TIE. What a choice decided is stored as
`detail` = 1 + the class's place, 0 where nothing was chosen, and the slice says the truth: "JEANS (4 of 48)".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from training.official.contract import Vectors
from training.official.scoring import table
from training.outcomes import column
from training.ranking import TIE

UNDECIDED = -1
Integers = npt.NDArray[np.int64]
_PLACE = re.compile(r"\((\d+) of (\d+)\)$")


def choices(probabilities: Vectors) -> tuple[Integers, npt.NDArray[np.float64]]:
    """The likeliest class (N,), UNDECIDED where another is as likely, and its probability. Raises ValueError on NaN."""
    if not np.isfinite(probabilities).all():
        raise ValueError("a model gave probabilities that are not numbers")
    found = probabilities.argmax(1)
    top = probabilities[np.arange(len(found)), found].astype(np.float64)
    return np.where((probabilities >= top[:, None] - TIE).sum(1) == 1, found, UNDECIDED), top


def chosen(benchmark: str, metric: str, items: pa.Table, classes: Sequence[str], found: Integers) -> pa.Table:
    """Outcomes of the share of right choices; `items` have the true class as `label`, one of `classes`."""
    place = {name: number for number, name in enumerate(classes)}
    labels = items["label"].to_pylist()
    truth = np.array([place[label] for label in labels])
    slices = [f"{label} ({place[label] + 1} of {len(classes)})" for label in labels]
    return table(benchmark, metric, items, found == truth, found + 1, slices)


def macro_f1(cell: pa.Table) -> float:
    """The plain mean, in percent, of F1 over all classes there are, from outcomes of `chosen`.

    Over all: scikit-learn by itself leaves out a class that is neither true nor chosen anywhere. Here it counts 0.
    """
    from sklearn.metrics import f1_score

    kind, slices = pd.factorize(column(cell, "slice"))
    places = [place.groups() for place in map(_PLACE.search, slices) if place]
    truth = np.array([int(place) for place, _ in places])[kind]
    found = np.rint(column(cell, "detail")).astype(np.int64)
    classes = range(1, int(places[0][1]) + 1)
    return float(100 * f1_score(truth, found, labels=classes, average="macro", zero_division=0))
