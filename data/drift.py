"""How far a drop lies from the last dataset: numbers, categories and the look of pictures and titles.

Every feature gets one distance in [0, 1] and the probability p of so large a one by chance:

- numbers: the two-sample Kolmogorov-Smirnov statistic, the greatest gap between the cumulative shares;
- categories: total variation, half the summed absolute differences of the shares, with p of a chi-square test in
  which values expected fewer than five times count as one;
- `pictures` and `titles`: the energy coefficient (Székely and Rizzo 2013), (2A - B - C) / 2A of the mean distances
  between (A) and within (B, C) the two samples, with p from permutations of the labels.

The last two compare light descriptions made for this purpose (data/drift_sample.py), not a model's embeddings: what
they see is colour, layout and wording. A large distance in a small drop is no drift while p is above `alpha`; in a
large one p alone means nothing, which is why both must speak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data import schema
from data.expectations import Rule

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from data.stage import Run

ORIGIN = "origin"  # column of the table: "drop" or "dataset"
NUMBERS = ("year", "title_length", "image_width", "image_height", "image_grey_std")
CATEGORIES = tuple(column.name for column in schema.COLUMNS if column.vocabulary)
EMBEDDINGS = ("pictures", "titles")
LEAST = 30  # rows of either side below which nothing is said
EXPECTED = 5  # of a cell of the chi-square test
PERMUTATIONS = 499
PICTURE = "drift.png"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The `land.drift` section of params.yaml: the greatest distance of each kind, and what counts as chance.

    Measured on the starter catalog: halves of one drop lie at most 0.001 (pictures, titles) apart, its two real drops
    0.014 and 0.002; pictures with a border 0.30, of another shop 0.35; titles with a phrase put before them 0.03.
    """

    numbers: float = 0.2
    categories: float = 0.2
    pictures: float = 0.05
    titles: float = 0.015
    alpha: float = 0.01

    def __post_init__(self) -> None:
        for name in ("numbers", "categories", "pictures", "titles", "alpha"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1]")


def rules(limits: Limits) -> list[Rule]:
    """One rule per feature, in the order in which reports show them."""
    kinds = [(NUMBERS, limits.numbers), (CATEGORIES, limits.categories)]
    kinds += [((name,), getattr(limits, name)) for name in EMBEDDINGS]
    return [
        Rule(name=f"drift_{feature}", severity="warning", column="",
             description=f"`{feature}` of the drop lies further than {limit:g} from that of the last dataset.",
             expectation="ExpectFeatureToResembleLastDataset",
             arguments={"feature": feature, "max_distance": limit, "alpha": limits.alpha})
        for features, limit in kinds for feature in features
    ]  # fmt: skip


def measure(table: pd.DataFrame, feature: str) -> dict[str, Any]:
    """{feature, method, distance, p, drop, dataset, note} of a feature of a table made by `drift_sample.sample`.

    `drop` and `dataset` are numbers of rows. Too few rows, or none, give a distance of 0 with p = 1.
    """
    names = [name for name in table.columns if name == feature or name.startswith(f"{feature}_0")]
    known = table[[ORIGIN, *names]].dropna()
    new, old = (known.loc[known[ORIGIN] == side, names] for side in ("drop", "dataset"))
    found: dict[str, Any] = {"feature": feature, "method": "", "distance": 0.0, "p": 1.0, "drop": len(new),
                             "dataset": len(old), "note": "too few to say"}  # fmt: skip
    if min(len(new), len(old)) < LEAST:
        return found
    if feature in EMBEDDINGS:
        method, (distance, p), note = "energy", energy(new.to_numpy(float), old.to_numpy(float)), ""
    elif feature in NUMBERS:
        method, (distance, p) = "Kolmogorov-Smirnov", _numbers(new[feature], old[feature])
        note = f"median {new[feature].median():g}, was {old[feature].median():g}"
    else:
        method, (distance, p, note) = "total variation", _categories(new[feature], old[feature])
    return found | {"method": method, "distance": round(distance, 4), "p": round(p, 4), "note": note}


def energy(new: np.ndarray, old: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> tuple[float, float]:
    """(energy coefficient, permutation p) of two samples, float (rows, features), after dividing by common spreads."""
    import numpy as np
    from scipy.spatial.distance import cdist

    both = np.concatenate([new, old])
    spread = both.std(axis=0)
    both = (both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    gaps = cdist(both, both)
    rng = np.random.default_rng(seed)
    orders = [np.arange(len(both)), *(rng.permutation(len(both)) for _ in range(permutations))]
    sides = np.zeros((len(both), len(orders)))
    for column, order in enumerate(orders):
        sides[order[: len(new)], column] = 1.0
    within_new = np.einsum("ik,ik->k", sides, gaps @ sides)
    to_all = gaps.sum(axis=0) @ sides
    between = to_all - within_new
    within_old = gaps.sum() - within_new - 2 * between
    n, m = len(new), len(old)
    a, b, c = between / (n * m), within_new / (n * (n - 1)), within_old / (m * (m - 1))
    found = (2 * a - b - c) / np.where(a > 0, 2 * a, 1.0)
    return max(float(found[0]), 0.0), float((found >= found[0]).mean())


def _numbers(new: pd.Series, old: pd.Series) -> tuple[float, float]:
    from scipy.stats import ks_2samp

    found = ks_2samp(new.to_numpy(float), old.to_numpy(float), method="asymp")
    return float(found.statistic), float(found.pvalue)


def _categories(new: pd.Series, old: pd.Series) -> tuple[float, float, str]:
    import pandas as pd
    from scipy.stats import chi2_contingency

    counts = pd.DataFrame({"drop": new.value_counts(), "dataset": old.value_counts()}).fillna(0).sort_index()
    shares = counts / counts.sum()
    gap = shares["drop"] - shares["dataset"]
    expected = counts.sum(axis=1) * min(len(new), len(old)) / (len(new) + len(old))
    cells = counts.groupby(counts.index.where(expected >= EXPECTED, "")).sum()
    p = float(chi2_contingency(cells.T, correction=False).pvalue) if len(cells) > 1 else 1.0
    note = f"{gap.idxmax()} {100 * gap.max():+.0f}, {gap.idxmin()} {100 * gap.min():+.0f} points"
    return float(gap.abs().sum()) / 2, p, note


def tell(run: Run, limits: Limits, found: Sequence[Mapping[str, Any]], compared_with: str) -> None:
    """Checks, the table and the picture of a landing's record. `found` is what `Suite.run_drift` returned."""
    for rule, item in zip(rules(limits), found, strict=True):
        run.check(
            rule.name, item["passed"], severity=rule.severity, description=rule.description,
            distance=item["distance"], p=item["p"], note=item["note"], compared_with=compared_with,
        )  # fmt: skip
    run.table("drift against the last dataset", [{key: value for key, value in item.items() if key != "name"}
                                                  for item in found])  # fmt: skip
    draw(rules(limits), found, run.out / PICTURE)
    run.picture("drift against the last dataset", run.out / PICTURE)


def draw(drift_rules: Sequence[Rule], found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A bar per feature: its distance as a share of what is allowed; red where it drifted."""
    from PIL import Image, ImageDraw

    from data.pictures import FAINT, INK, LINE, PAPER, font

    left, unit, step, widest = 150, 220, 24, 2.0
    sheet = Image.new("RGB", (left + int(unit * widest) + 120, 50 + step * len(found)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((12, 12), "Distance to the last dataset, as a share of what is allowed", fill=INK, font=font(14))
    for row, (rule, item) in enumerate(zip(drift_rules, found, strict=True)):
        top, share = 42 + step * row, item["distance"] / rule.arguments["max_distance"]
        pen.text((left - 10, top + 8), item["feature"].replace("_", " "), fill=INK, font=font(12), anchor="rm")
        end = left + max(unit * min(share, widest), 1)
        pen.rectangle((left, top, end, top + 15), fill=_colour(item))
        pen.text((end + 6, top + 8), f"{share:.2f}   p {item['p']:.2g}", fill=FAINT, font=font(11), anchor="lm")
    pen.line((left + unit, 38, left + unit, sheet.height - 8), fill=LINE, width=2)
    sheet.save(path, optimize=True)


def _colour(item: Mapping[str, Any]) -> Literal["#2a9d5c", "#c0392b", "#c9ccd1"]:
    if not item["passed"]:
        return "#c0392b"
    return "#2a9d5c" if item["method"] else "#c9ccd1"
