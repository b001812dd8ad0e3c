"""SugarCrepe++: two captions that say the same in other words, and a foil that is worded like the first.

Dumpala et al., NeurIPS 2024; format and rule from Sri-Harsha/scpp, whose comparisons are strict. ITT: the photo fits
both captions better than the foil. TOT, of the text encoder alone: the captions are nearer to each other than either is
to the foil. In 2 items of swap_obj caption and foil are equal, so the best possible ITT there is 243 of 245.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.official.contract import Exam, File, Metrics, Official, Picture, Vectors
from training.official.files import field
from training.official.pairs import SCHEMA as PAIRS
from training.official.pairs import entries, likelihoods, pair_items, shared, words
from training.official.scoring import by_slice, table
from training.ranking import TIE

NAME = "sugarcrepe_pp"
TYPES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
ITT, TOT, BLIND = "ITT", "TOT", "blind ITT"
SCHEMA = PAIRS.append(pa.field("caption2", pa.string()))


def load(folder: Path) -> pa.Table:
    """All items. Raises `UserError`."""
    return pair_items((row for kind in TYPES for row in _rows(folder, kind)), SCHEMA)


def _rows(folder: Path, kind: str) -> Iterator[tuple[str, ...]]:
    for number, entry in enumerate(entries(folder, f"{kind}.json", list)):
        where = f"{folder / kind}.json: entry {number}"
        field(entry, "id", (int, str), where)
        texts = (words(entry, name, where) for name in ("caption", "negative_caption", "caption2"))
        yield f"{kind}/{number}", kind, f"coco/val2017/{words(entry, 'filename', where)}", *texts


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of ITT, TOT and the control's ITT; detail: the smaller of the two differences."""
    pictures = [Picture(path) for path in items["picture"].to_pylist()]
    columns = [items[name].to_pylist() for name in ("caption", "caption2", "foil")]
    first, second, foil = (exam.match(pictures, texts).astype(np.float64) for texts in columns)
    one, two, other = (exam.texts(texts) for texts in columns)
    alike = _cosines(one, two)
    prior = likelihoods(exam, *columns)
    slices = items["slice"].to_pylist()
    margins = {
        ITT: np.minimum(first - foil, second - foil),
        TOT: np.minimum(alike - _cosines(one, other), alike - _cosines(two, other)),
        BLIND: np.minimum(prior[0] - prior[2], prior[1] - prior[2]),
    }
    return pa.concat_tables([table(NAME, name, items, m > TIE, m, slices) for name, m in margins.items()])


def _cosines(left: Vectors, right: Vectors) -> npt.NDArray[np.float64]:
    return np.einsum("nd,nd->n", left, right).astype(np.float64)


def metrics(outcomes: pa.Table) -> Metrics:
    """ITT and TOT by type, their plain means over types, and what the text-only control shares of ITT."""
    found: Metrics = {}
    for name in (ITT, TOT):
        types = by_slice(outcomes, name)
        found |= {f"{name} {kind}": value for kind, value in types.items()}
        found[name] = float(np.mean(list(types.values())))
    return {**found, **shared(outcomes, ITT, BLIND)}


_ALL = [name for metric in (ITT, TOT) for name in (metric, *(f"{metric} {kind}" for kind in TYPES))]
BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="SugarCrepe++",
        ability="meaning against wording",
        files=tuple(File(f"{kind}.json") for kind in TYPES),
        source="5 JSON files (LICENSE: MIT, README: CC-BY-4.0), folder `data` of github.com/Sri-Harsha/scpp.",
        pictures="COCO 2017 validation in coco/val2017 (cocodataset.org)",
        load=load,
        score=score,
        metrics=metrics,
        headline=ITT,
        chance=dict.fromkeys(_ALL, 100 / 3),
        constant=dict.fromkeys(_ALL, 0.0),
    )
}
