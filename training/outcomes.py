"""What a benchmark is, and the one table of per-item outcomes that every metric and every verdict is computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.params import UserError
from training.disturbance import Kind

SCHEMA = pa.schema([
    ("benchmark", pa.string()),
    ("metric", pa.string()),
    ("item_id", pa.string()),
    ("unit", pa.int64()),  # product family: what is resampled
    ("outcome", pa.float64()),  # 1 success, 0 failure
    ("slice", pa.string()),
    ("detail", pa.float64()),  # what the outcome was decided by: a rank, a score difference, or a confidence
])  # fmt: skip
VERSION = 2  # raise it when scoring changes: cached outcomes of champions are of another make
DETAIL_DIGITS = 6  # past these, float32 scores depend on the machine


class Examinee(Protocol):
    """What a benchmark may ask of the model under test, and of the data a blind control may learn from."""

    def images(self, keys: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors (N, D) of photos by `image_key`."""

    def texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors (N, D) of texts."""

    def attributes(
        self, keys: Sequence[str], texts: Sequence[str | None]
    ) -> dict[str, tuple[list[str], npt.NDArray[np.float32]]]:
        """Per task its class names and their probabilities (N, C), for photos with their titles (None: no title)."""

    def compose(self, keys: Sequence[str], conditions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors (N, D) to search photos with: each photo, changed as its condition says."""

    def gallery(self) -> list[str]:
        """`image_key` of every photo of the test split, each once."""

    def disturbed(self, keys: Sequence[str], kind: Kind) -> list[str]:
        """Names that stand for the photos `keys`, blurred, cut or noisy, wherever a key is asked for."""

    def training_texts(self) -> list[str]:
        """Every title and caption of the training split."""


@dataclasses.dataclass(frozen=True)
class Question:
    """An item in words, for pages and tables: what is asked, what is right, what is wrong; empty where not told."""

    asked: str = ""
    right: str = ""
    wrong: str = ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One exam: the suite file it reads, how it is scored, and which of its metrics the gate compares.

    Attributes:
        endpoint: models that compete for it sit this exam.
        gate_metrics: those that the gate compares; none where the exam is only shown.
        question: a row of the suite in words.
        detail: what the outcomes' column `detail` holds.
        control: a metric that one gets without looking; a gain on items that it also solves does not count.
        blind: who gets the control's score, in words.
        computed: {metric: {value, low, high, n}} of what is no mean over items, from this benchmark's outcomes.
        only: which of the suite's rows are asked; all of them if None.
    """

    name: str
    endpoint: str
    suite: str
    columns: tuple[str, ...]
    gate_metrics: tuple[str, ...]
    score: Callable[[pa.Table, Examinee], pa.Table]
    question: Callable[[Mapping[str, Any]], Question]
    detail: Literal["rank", "difference", "confidence"]
    control: str | None = None
    blind: str = "a text-only scorer"
    computed: Callable[[pa.Table], dict[str, dict[str, float]]] | None = None
    only: Callable[[pa.Table], pa.Table] | None = None

    def asks_nothing(self, suites: Path) -> bool:
        """Whether the suite was made and has no items: a catalog without genders and usages has none to change."""
        try:
            found = pq.read_table(suites / self.suite)
            return bool((self.only(found) if self.only else found).num_rows == 0)
        except (OSError, KeyError, pa.ArrowInvalid):  # `items` says what is wrong
            return False

    def items(self, suites: Path) -> pa.Table:
        """The suite's items. Raises `UserError` if the file is missing, empty, incomplete or lists an item twice."""
        path, cure = suites / self.suite, "Rebuild it with `dvc repro -f suites`."
        if not path.is_file():
            raise UserError(f"{path}: not found, so {self.name} cannot be scored. Make it with `dvc repro suites`.")
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: not a parquet file ({error}). {cure}") from None
        for column in self.columns:
            if column not in table.column_names:
                raise UserError(f"{path}: column `{column}` is missing. {cure}")
            if table[column].null_count:
                raise UserError(f"{path}: column `{column}` has {table[column].null_count} empty values. {cure}")
        if len(table["item_id"].unique()) != table.num_rows:
            raise UserError(f"{path}: an item_id occurs twice. {cure}")
        table = self.only(table) if self.only else table
        if table.num_rows == 0:
            raise UserError(
                f"{path}: no items. The test split has none to ask; land more products, then `dvc repro suites`."
            )
        return table.select(self.columns)


def outcome_table(
    benchmark: str, metric: str, items: pa.Table, outcome: npt.NDArray[np.bool_], detail: npt.NDArray[np.float64],
    slices: Sequence[str] | None = None,
) -> pa.Table:  # fmt: skip
    """Outcomes of one metric: one row per item of `items` (which has item_id and group), in their order."""
    n = items.num_rows
    if len(outcome) != n or not np.isfinite(detail).all():
        raise UserError(f"{benchmark}: {metric} could not be scored for every item. Check the model's embeddings.")
    return pa.table(
        [
            pa.array([benchmark] * n), pa.array([metric] * n), items["item_id"].cast(pa.string()),
            items["group"].cast(pa.int64()), pa.array(outcome.astype(np.float64)), pa.array(slices or [""] * n),
            pa.array(np.round(detail, DETAIL_DIGITS)),
        ],
        schema=SCHEMA,
    )  # fmt: skip


def cells(outcomes: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """The table split by (benchmark, metric), in order of first appearance; rows sorted by item."""
    import pyarrow.compute as pc

    keys = dict.fromkeys(zip(outcomes["benchmark"].to_pylist(), outcomes["metric"].to_pylist(), strict=True))
    return {
        key: outcomes.filter(
            pc.and_(pc.equal(outcomes["benchmark"], key[0]), pc.equal(outcomes["metric"], key[1]))
        ).sort_by("item_id")
        for key in keys
    }


def column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """One column as a numpy array."""
    return table[name].to_numpy(zero_copy_only=False)
