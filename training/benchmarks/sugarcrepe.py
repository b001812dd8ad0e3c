"""SugarCrepe: a COCO photo fits its caption better than a fluent foil made by replacing, swapping or adding a part.

Hsieh et al., NeurIPS 2023; format and rule from RAIVNLab/sugar-crepe, whose comparison is strict too. Two averages are
in print: the paper's groups are weighted by items, those of CE-CLIP are plain means over types. Both are given.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa

from training.official.contract import File, Metrics, Official
from training.official.pairs import ACCURACY, entries, pair_items, score_pairs, shared, words
from training.official.scoring import by_slice
from training.outcomes import cells, column

NAME = "sugarcrepe"
TYPES = {  # each with the sha256 of its file
    "add_att": "012d88d729693d193760e6f3393b06a1cf874380a9db0062e937201199fe044d",
    "add_obj": "1b9d76b93139a937b8dc1ada92a4f05ecc821bb3c291d752428bafadd4bb0682",
    "replace_att": "9fe55fd4c0a9ad1f85d486d9f6d0215b41f867eb025026e7f7b5ce44352545ee",
    "replace_obj": "9d299600639947e9d15281a9ded1382b376cf4ea088a8d08a1314bfe76e81898",
    "replace_rel": "356bcc2fc4c6aed3f4d9fd50acc58489bb1fe70c28791f9368d4cbf9ea39cdc9",
    "swap_att": "7a7ce04e5c4c80412b48c6f0c1347fb1a2f5d54c0be6aa429b64d390e442f8d0",
    "swap_obj": "073cdb8e253d053614e80710834d9773b09dbc1dd0a412f6f9492262caa1dcad",
}
GROUPS = ("replace", "swap", "add")
BY_ITEMS, BY_TYPES = " (mean over items)", " (mean over types)"
HEADLINE = f"all{BY_TYPES}"


def load(folder: Path) -> pa.Table:
    """All items, by the keys that the files have: key "108" of swap_obj is missing. Texts keep their outer blanks."""
    return pair_items(
        (
            f"{kind}/{key}", kind, f"coco/val2017/{words(entry, 'filename', where)}",
            words(entry, "caption", where), words(entry, "negative_caption", where),
        )
        for kind in TYPES
        for key, entry in entries(folder, f"{kind}.json", dict).items()
        for where in [f"{folder / kind}.json: entry {key!r}"]
    )  # fmt: skip


def metrics(outcomes: pa.Table) -> Metrics:
    """Accuracy by type, groups and the whole in both averages, and what the text-only control shares."""
    types = by_slice(outcomes, ACCURACY)
    (cell,) = (cell for (_, name), cell in cells(outcomes).items() if name == ACCURACY)
    counts = {kind: int((column(cell, "slice") == kind).sum()) for kind in types}
    return {**types, **averages(types, counts), **shared(outcomes)}


def averages(types: dict[str, float], counts: dict[str, int]) -> Metrics:
    """Groups and the whole, weighted by items and as plain means over types."""
    found: Metrics = {}
    for group in (*GROUPS, "all"):
        kinds = [kind for kind in types if group in ("all", kind.partition("_")[0])]
        total = sum(counts[kind] for kind in kinds)
        if kinds:
            found[group + BY_ITEMS] = sum(types[kind] * counts[kind] for kind in kinds) / total
            found[group + BY_TYPES] = sum(types[kind] for kind in kinds) / len(kinds)
    return found


_ALL = (*TYPES, *(group + average for group in (*GROUPS, "all") for average in (BY_ITEMS, BY_TYPES)))
BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="SugarCrepe",
        ability="replaced, swapped and added objects, attributes and relations",
        files=tuple(File(f"{kind}.json", digest) for kind, digest in TYPES.items()),
        source="7 JSON files (MIT) from the folder `data` of github.com/RAIVNLab/sugar-crepe.",
        pictures="COCO 2017 validation in coco/val2017 (cocodataset.org)",
        load=load,
        score=functools.partial(score_pairs, NAME),
        metrics=metrics,
        headline=HEADLINE,
        chance=dict.fromkeys(_ALL, 50.0),
        constant=dict.fromkeys(_ALL, 0.0),
    )
}
