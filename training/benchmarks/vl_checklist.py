"""VL-CheckList: objects, attributes and relations of a picture against a text with one of them replaced.

Zhao et al., EMNLP Findings 2022; format and rule ("ITC": strict, first positive against first negative) from
om-ai-lab/VL-CheckList. A column of its report is the mean over data sets (vg, vaw, swig, hake) of the mean over their
files; Location and Size are means of three columns each; the published average is over those 9 leaves, not over the 3
groups. Its sample configuration scores the first 1,000 items of each file, which is given beside the full files. It
also drops items without a picture silently; here a missing picture is an error. Some positives equal their negatives:
always a tie, never a success.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from data.params import UserError
from training.official.contract import File, Metrics, Official
from training.official.files import field
from training.official.pairs import ACCURACY, entries, pair_items, score_pairs, shared

NAME = "vl_checklist"
CAP = 1000  # items per file of the sample configuration
ATTRIBUTES = ("action", "color", "material", "size", "state")
PARTS = {"Location": ("center", "mid", "margin"), "Size": ("large", "medium", "small")}
ROLES = ("agent", "destination", "item", "tool")
ROOTS = {"vg": "vg", "vaw": "vg", "swig": "swig", "hake": "hake"}  # data set: folder of its pictures
HEADLINE, GROUPED, CAPPED = "mean of 9 leaves", "mean of 3 groups", " (first 1000)"


def _files() -> dict[str, str]:
    """{slice: path} of the annotation files; a slice is group/leaf/data set_part, or group/leaf/part/data set_part."""
    found = {
        f"Attribute/{leaf}/{data}": f"data/Attribute/{data}/{leaf}.json"
        for leaf in ATTRIBUTES
        for data in ("vg", "vaw")
    }
    for leaf, parts in PARTS.items():
        base = f"data/Object/{leaf}"
        for part in parts:
            here = f"Object/{leaf}/{part}"
            found[f"{here}/hake"] = f"{base}/hake_{leaf.lower()}/hake_obj_{part}.json"
            for role in ("obj", "subj"):
                found[f"{here}/vg_{role}"] = f"{base}/vg_{leaf.lower()}/vg_{role}_{part}.json"
            for role in ROLES:
                name = f"swig_{role}"
                found[f"{here}/{name}"] = f"{base}/swig_{leaf.lower()}/{name}/{name}_{part}.json"
    for name in ("hake", "swig"):
        found[f"Relation/action/{name}"] = f"data/Relation/{name}_action.json"
    return {**found, **{f"Relation/{leaf}/vg": f"data/Relation/vg/{leaf}.json" for leaf in ("action", "spatial")}}


FILES = _files()
LEAVES = tuple(dict.fromkeys("/".join(name.split("/")[:2]) for name in FILES))
GROUPS = tuple(dict.fromkeys(leaf.partition("/")[0] for leaf in LEAVES))


def load(folder: Path) -> pa.Table:
    """The items of all files, in their order. Raises `UserError`."""
    return pair_items(row for name in FILES for row in _rows(folder, name))


def _rows(folder: Path, name: str) -> Iterator[tuple[str, ...]]:
    root = ROOTS[name.rpartition("/")[2].partition("_")[0]]
    for number, entry in enumerate(entries(folder, FILES[name], list)):
        where = f"{folder / FILES[name]}: entry {number}"
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise UserError(f"{where}: is not a picture and its texts. Fetch the official file again.")
        texts = [field(entry[1], side, list, where) for side in ("POS", "NEG")]
        if not all(side and isinstance(side[0], str) for side in texts):
            raise UserError(f"{where}: field `POS` or `NEG` has no text. Fetch the official file again.")
        yield f"{name}#{number}", name, f"{root}/{entry[0]}", texts[0][0], texts[1][0]


def metrics(outcomes: pa.Table) -> Metrics:
    """Averages of the full files and of their first 1,000 items, and what the text-only control shares."""
    frame = outcomes.to_pandas()
    frame = frame[frame.metric == ACCURACY]
    first = frame[frame.item_id.str.rpartition("#")[2].astype(int) < CAP]
    capped = averages(leaves(first.groupby("slice").outcome.mean()))
    return {
        **averages(leaves(frame.groupby("slice").outcome.mean())),
        **{name + CAPPED: value for name, value in capped.items()},
        **shared(outcomes),
    }


def leaves(files: pd.Series) -> dict[str, float]:
    """{leaf: percent} of the shares right by slice: over files, then data sets, then the parts of a leaf."""
    table = pd.DataFrame({"share": 100 * files})
    parts = table.index.str.split("/")
    table["leaf"] = ["/".join(part[:2]) for part in parts]
    table["column"] = ["/".join(part[:-1]) for part in parts]
    table["data"] = [part[-1].partition("_")[0] for part in parts]
    by_data = table.groupby(["leaf", "column", "data"]).share.mean()
    found = by_data.groupby(["leaf", "column"]).mean().groupby("leaf").mean()
    return {leaf: float(found[leaf]) for leaf in LEAVES if leaf in found.index}


def averages(leaf: dict[str, float]) -> Metrics:
    """The leaves, their groups, and both means: over leaves as published, and over groups."""
    groups = {
        group: _mean([value for name, value in leaf.items() if name.startswith(f"{group}/")])
        for group in GROUPS
        if any(name.startswith(f"{group}/") for name in leaf)
    }
    return {**leaf, **groups, HEADLINE: _mean(list(leaf.values())), GROUPED: _mean(list(groups.values()))}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


_ALL = [name + cap for name in (*LEAVES, *GROUPS, HEADLINE, GROUPED) for cap in ("", CAPPED)]
BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="VL-CheckList",
        ability="objects, attributes and relations, replaced one at a time",
        files=tuple(File(path) for path in FILES.values()),
        source=f"{len(FILES)} JSON files (non-commercial use) of github.com/om-ai-lab/VL-CheckList, below `data`.",
        pictures="vg/{VG_100K,VG_100K_2}, swig, hake/{its 7 folders}",
        load=load,
        score=functools.partial(score_pairs, NAME),
        metrics=metrics,
        headline=HEADLINE,
        chance=dict.fromkeys(_ALL, 50.0),
        constant=dict.fromkeys(_ALL, 0.0),
    )
}
