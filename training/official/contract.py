"""What an official benchmark is: its files, how its items are read, how one is scored, and its metrics.

Unlike the suites of the catalog (`training.benchmarks.BENCHMARKS`), which every model sits in the graph, these are run
on request (`python -m training.official`), from annotation files that somebody has installed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Vectors = npt.NDArray[np.float32]
Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class File:
    """An annotation file below the benchmark's own folder; `PATH.gz` stands in for `PATH`.

    `sha256` is of the uncompressed content, or of JSON without its white space; None where no official file was at
    hand to take it from. A file is not needed where the one named `instead` is there: some come in two formats.
    """

    path: str
    sha256: str | None = None
    needed: bool = True
    instead: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture below the benchmarks folder ("coco/val2017/000000000139.jpg", or "nlvr/x.parquet#ID"), or a cut of it.

    `box` is (left, top, right, bottom) in pixels, cut out first; `square` pads the cut with black to a square; `pad`
    pads the shorter side with black until the longer is at most that many times as long (0: as it is).
    """

    path: str
    box: tuple[float, float, float, float] | None = None
    square: bool = False
    pad: float = 0.0


class Exam(Protocol):
    """What an official benchmark may ask of a model. Scores are float32 and never rounded below that.

    One with a matching head has it as `matcher`: scores (N,) of pictures and texts, as `match` gives.
    """

    def images(self, pictures: Sequence[Picture]) -> Vectors:
        """Unit vectors (N, D)."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (N, D)."""

    def compose(self, pictures: Sequence[Picture], changes: Sequence[str]) -> Vectors:
        """Unit vectors (N, D) to search pictures with: each picture, changed as its text says."""

    def match(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        """How well each picture fits its text (N,): the cosine of a dual encoder, greater is better."""

    def classes(
        self, task: str, pictures: Sequence[Picture | None], texts: Sequence[str | None], names: Sequence[str]
    ) -> Vectors:
        """Probabilities (N, C) of the classes `names` by picture, text or both (None: absent)."""

    def classes_of_pairs(
        self, task: str, pictures: Sequence[tuple[Picture, Picture]], texts: Sequence[str], names: Sequence[str]
    ) -> Vectors:
        """Probabilities (N, C) of the classes `names` for a text about two pictures, left and right."""

    def maps(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        """Where in each picture its text is seen (N, rows, columns), on a grid over the whole picture; 0 is nowhere."""

    def training_texts(self) -> list[str]:
        """What a text-only control may learn from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Official:
    """One official benchmark.

    Attributes:
        name: as in commands, and the folder of its annotation files.
        title, ability: for tables: its published name, and what it tests.
        files: its annotation files; `source` says in words where the official ones come from, and under which licence.
        pictures: which pictures it needs and in which folders, in words; empty if none.
        asks: what a model needs to sit it: "search" any dual encoder, else the endpoint or head.
        load: the benchmark's folder to its items, one row each, with `item_id`, `group` (int64, the image or family
            that is resampled) and columns of its own. Raises `UserError` that names file, entry and field.
        score: items to outcomes (`training.outcomes.SCHEMA`). Where the official rule treats ties in another way, each
            metric "M" has a twin "M (official)".
        metrics: outcomes to {metric: percent}, by the published formula, of these outcomes and nothing else; twins
            come out as "M (official)".
        headline: the metric to compare models by.
        chance: {metric: percent} that guessing gets, for those of which it is known.
        constant: {metric: percent} that a model with one score for everything gets by the official rule.
        lower: metrics of which less is better.
        submit: the benchmark's folder to {file name: JSON content} for its test server, where answers are withheld.
    """

    name: str
    title: str
    ability: str
    files: tuple[File, ...]
    source: str
    pictures: str = ""
    asks: str = "search"
    load: Callable[[Path], pa.Table]
    score: Callable[[pa.Table, Exam], pa.Table]
    metrics: Callable[[pa.Table], Metrics]
    headline: str
    chance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    constant: Mapping[str, float] = dataclasses.field(default_factory=dict)
    submit: Callable[[Path, Exam], dict[str, Any]] | None = None
