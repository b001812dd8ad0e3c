"""Zero-shot classification: the 20 sets of ELEVATER, and ImageNet beside them. Only sets that are installed are scored.

A class is the normalised mean of its prompts' unit vectors, a picture's class the one of the greatest cosine. Each set
has the metric that ELEVATER gives it; sets of one label also show accuracy, its plain mean over classes and, where they
have more than five, acc@5. ROC-AUC is of the difference of the two classes' cosines, 11-point mAP of the logarithm of
the softmax over classes at scale 100, as ELEVATER takes them. `mean` is the plain mean over the installed of the 20;
only `mean of 20` may stand beside published ones. Class names must be in the order of the labels' numbers.

Ties: the official argmax gives them to the first class, and the official AUC counts them half: "(official)". The curve
of mAP is interpolated, so that the ties' worst order, which is the house's, and the official one give the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official.contract import Exam, File, Metrics, Official, Picture, Vectors
from training.official.files import find, read, read_json
from training.official.scoring import OFFICIAL, table
from training.outcomes import column
from training.ranking import TIE
from training.zero_shot import unit

NAME = "elevater"
ACCURACY, PER_CLASS, MAP, AUC, FIVE = "accuracy", "mean per class", "11-point mAP", "ROC-AUC", "acc@5"
IMAGENET = "imagenet-1k"
SETS = {  # as ELEVATER calls them: what they are called in the files of class names and prompts, and their metric
    "caltech-101": ("caltech101", PER_CLASS),
    "cifar-10": ("cifar10", ACCURACY),
    "cifar-100": ("cifar100", ACCURACY),
    "country211": ("country211", ACCURACY),
    "dtd": ("dtd", ACCURACY),
    "eurosat_clip": ("eurosat", ACCURACY),
    "fer-2013": ("fer2013", ACCURACY),
    "fgvc-aircraft-2013b-variants102": ("fgvc_aircraft", PER_CLASS),
    "food-101": ("food101", ACCURACY),
    "gtsrb": ("gtsrb", ACCURACY),
    "hateful-memes": ("hateful-memes", AUC),
    "kitti-distance": ("kitti_closest_vehicle_distance", ACCURACY),
    "mnist": ("mnist", ACCURACY),
    "oxford-flower-102": ("flowers", PER_CLASS),
    "oxford-iiit-pets": ("pets", PER_CLASS),
    "patch-camelyon": ("pcam", ACCURACY),
    "rendered-sst2": ("renderedsst2", ACCURACY),
    "resisc45_clip": ("resisc45", ACCURACY),
    "stanford-cars": ("cars", ACCURACY),
    "voc-2007-classification": ("voc2007_multilabel", MAP),
    IMAGENET: ("imagenet1k", ACCURACY),
}
CLASSES, PROMPTS, INDEX = "en_classnames.json", "en_zeroshot_classification_templates.json", "test.txt"
PART = 4096  # pictures compared with all classes at once
SCALE = 100.0
ITEMS = pa.schema([
    ("item_id", pa.string()), ("group", pa.int64()), ("set", pa.string()), ("picture", pa.string()),
    ("labels", pa.list_(pa.int64())),
])  # fmt: skip

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def load(folder: Path) -> pa.Table:
    """Pictures of the installed sets; the schema tells each set's `classes` and `prompts`. Raises `UserError`."""
    installed = [name for name in SETS if find(folder, f"{name}/{INDEX}")]
    if not installed:
        raise UserError(f"{folder}: no set is there. Put a set's index at, for example, {folder}/cifar-10/{INDEX}.")
    classes, prompts = (read_json(folder, path) for path in (CLASSES, PROMPTS))
    rows: list[tuple[str, int, str, str, list[int]]] = []
    told: dict[str, dict[str, list[str]]] = {}
    for name in installed:
        names = _words(classes, SETS[name][0], folder / CLASSES)
        if SETS[name][1] == AUC and len(names) != 2:
            raise UserError(f"{folder / CLASSES}: entry `{SETS[name][0]}` must name two classes, the wanted one last.")
        told[name] = {"classes": names, "prompts": _words(prompts, SETS[name][0], folder / PROMPTS)}
        found = _index(folder, name, len(names))
        rows += [(f"{name} {path}", len(rows) + place, name, path, labels)
                 for place, (path, labels) in enumerate(found)]  # fmt: skip
    columns = [pa.array(values) for values in zip(*rows, strict=True)]
    return pa.Table.from_arrays(columns, names=ITEMS.names).cast(ITEMS).replace_schema_metadata(
        {"sets": json.dumps(told)}
    )  # fmt: skip


def _words(known: Any, key: str, path: Path) -> list[str]:
    found = known.get(key) if isinstance(known, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
        raise UserError(f"{path}: entry `{key}` is no list of words. Add the words of ELEVATER's prompts.py.")
    return found


def _index(folder: Path, name: str, count: int) -> list[tuple[str, list[int]]]:
    """(picture, labels) of each line "PATH LABEL[,LABEL]" of a set's index, where `x.zip@y` is y of the folder x."""
    path = f"{name}/{INDEX}"
    try:
        lines = read(folder, path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{folder / path}: is not text ({error}). Fetch the file again.") from None
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{folder / path}: line {number}"
        picture, _, labels = line.strip().rpartition(" ")
        numbers = [int(label) for label in labels.split(",") if label.isdecimal()]
        if not picture or len(numbers) != labels.count(",") + 1 or max(numbers) >= count:
            raise UserError(f"{where}: is not a picture and labels of the {count} classes that {CLASSES} names.")
        if len(numbers) > 1 and SETS[name][1] != MAP:
            raise UserError(f"{where}: has several labels, and {name} has one each. Fetch the official file again.")
        shown = f"{NAME}/{name}/{picture.replace('.zip@', '/')}"
        if shown in found:
            raise UserError(f"{where}: {picture} occurs twice. Fetch the official file again.")
        found[shown] = numbers
    if not found:
        raise UserError(f"{folder / path}: lists no picture. Fetch the official file again.")
    return list(found.items())


def score(items: pa.Table, exam: Exam) -> pa.Table:
    """Outcomes of every set. Details: of accuracy the lead in cosine, of acc@5 the rank, of AUC and mAP the score."""
    found = []
    for name, told in json.loads(items.schema.metadata[b"sets"]).items():
        part = items.filter(pc.equal(items["set"], name))
        images = exam.images([Picture(path) for path in part["picture"].to_pylist()])
        classes = _classifier(exam, told["classes"], told["prompts"])
        rule = {AUC: _auc, MAP: _average_precision}.get(SETS[name][1], _one_label)
        found += rule(name, part, images, classes, told["classes"])
    return pa.concat_tables(found)


def _classifier(exam: Exam, names: Sequence[str], prompts: Sequence[str]) -> Vectors:
    """Unit vectors (C, D): of each class the mean over its prompts."""
    texts = exam.texts([prompt.replace("{c}", name) for name in names for prompt in prompts])
    return unit(texts.reshape(len(names), len(prompts), -1).mean(1))


def _one_label(name: str, items: pa.Table, images: Vectors, classes: Vectors, names: Sequence[str]) -> list[pa.Table]:
    truth = np.array([labels[0] for labels in items["labels"].to_pylist()])
    lead, rank, first = np.empty(len(truth)), np.empty(len(truth), np.int64), np.empty(len(truth), bool)
    for start in range(0, len(truth), PART):
        part = slice(start, start + PART)
        scores, asked = images[part] @ classes.T, truth[part, None]
        own = np.take_along_axis(scores, asked, axis=1)
        level, before = scores >= own - TIE, np.arange(len(classes)) < asked
        rank[part] = level.sum(1)  # itself among them
        first[part] = ~((scores > own + TIE) | (level & before)).any(1)
        np.put_along_axis(scores, asked, -np.inf, axis=1)
        lead[part] = own[:, 0] - scores.max(1)
    slices = [f"{names[place]} ({place + 1} of {len(names)})" for place in truth]
    found = [
        table(NAME, f"{name} {ACCURACY}", items, lead > TIE, lead, slices),
        table(NAME, f"{name} {ACCURACY}{OFFICIAL}", items, first, lead, slices),
    ]
    if len(classes) > 5:  # else every answer is among the first five
        found.append(table(NAME, f"{name} {FIVE}", items, rank <= 5, rank, slices))
    return found


def _auc(name: str, items: pa.Table, images: Vectors, classes: Vectors, names: Sequence[str]) -> list[pa.Table]:
    """The outcome of an item is the share of items of the other class that stand on the right side of it."""
    cosines = (images @ classes.T).astype(np.float64)
    scores = cosines[:, 1] - cosines[:, 0]
    truth = np.array([labels[0] for labels in items["labels"].to_pylist()]) == 1
    slices = [names[int(yes)] for yes in truth]
    return [
        table(NAME, f"{name} {AUC}{suffix}", items, _placements(scores, truth, ties), scores, slices)
        for suffix, ties in (("", 0.0), (OFFICIAL, 0.5))
    ]


def _placements(scores: Floats, truth: Flags, ties: float) -> Floats:
    """Of each item the share (N,) of the other class's that it is ordered rightly with; a tie counts `ties`.

    Their mean over the items of a class, and over all, is the area under the ROC curve. Without a second class it is 0.
    """
    found = np.zeros(len(scores))
    for mine, sign in ((truth, 1.0), (~truth, -1.0)):
        others = np.sort(sign * scores[~mine])
        if len(others) and mine.any():
            below = np.searchsorted(others, sign * scores[mine] - TIE, "left")
            level = np.searchsorted(others, sign * scores[mine] + TIE, "right") - below
            found[mine] = (below + ties * level) / len(others)
    return found


def _average_precision(
    name: str, items: pa.Table, images: Vectors, classes: Vectors, names: Sequence[str]
) -> list[pa.Table]:
    """One row per picture and class; the slice says whether the class is there, and the outcome is as for AUC."""
    logits = SCALE * (images @ classes.T).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    there = np.zeros(scores.shape, dtype=bool)
    for row, labels in enumerate(items["labels"].to_pylist()):
        there[row, labels] = True
    found = []
    for place, word in enumerate(names):
        pairs = items.set_column(0, "item_id", pa.array([f"{key} {word}" for key in items["item_id"].to_pylist()]))
        placed = _placements(scores[:, place], there[:, place], 0.0)
        slices = [f"{word}: {'yes' if yes else 'no'}" for yes in there[:, place]]
        found.append(table(NAME, f"{name} {MAP}", pairs, placed, scores[:, place], slices))
    return found


def metrics(outcomes: pa.Table) -> Metrics:
    """Each set's metrics, and the plain mean over the sets, in percent."""
    frame = outcomes.select(["metric", "slice", "outcome"]).to_pandas()
    classes = 100 * frame.groupby(["metric", "slice"], sort=False)["outcome"].mean()  # in one pass: there are many sets
    found: Metrics = (100 * frame.groupby("metric", sort=False)["outcome"].mean()).to_dict()
    each = classes.groupby("metric", sort=False).mean()
    sets = [name for name in SETS if any(metric.startswith(f"{name} ") for metric in found)]
    for name in sets:
        if (metric := f"{name} {MAP}") in found:
            found[metric] = eleven_points(outcomes.filter(pc.equal(outcomes["metric"], metric)))
        for suffix in ("", OFFICIAL):
            if (metric := f"{name} {ACCURACY}{suffix}") in found:
                found[f"{name} {PER_CLASS}{suffix}"] = float(each[metric])
    twenty = [f"{name} {SETS[name][1]}" for name in sets if name != IMAGENET] or [f"{IMAGENET} {ACCURACY}"]
    found["mean"] = float(np.mean([found[metric] for metric in twenty]))
    found[f"mean{OFFICIAL}"] = float(np.mean([found.get(metric + OFFICIAL, found[metric]) for metric in twenty]))
    if len(twenty) == len(SETS) - 1:
        found |= {f"mean of 20{suffix}": found[f"mean{suffix}"] for suffix in ("", OFFICIAL)}
    return found


def eleven_points(cell: pa.Table) -> float:
    """11-point interpolated average precision, the plain mean over classes, in percent [vision_evaluation].

    Of a class: the mean, over recall 0, 0.1, …, 1, of the greatest precision at that recall or more. The curve ends in
    precision 1 at recall 0, so that even the worst scores get 1/11.
    """
    from sklearn.metrics import precision_recall_curve

    of, kinds = pd.factorize(column(cell, "slice"))
    words = np.array([kind.rpartition(": ")[0] for kind in kinds])[of]
    present = np.array([kind.endswith(": yes") for kind in kinds])[of]
    scores, values = column(cell, "detail"), []
    for word in np.unique(words):
        rows = words == word
        if present[rows].any():  # a class of which nothing is there has no recall
            precision, recall, _ = precision_recall_curve(present[rows], scores[rows])
            values.append(np.mean([precision[recall >= level].max() for level in np.linspace(0, 1, 11)]))
    return float(100 * np.mean(values)) if values else 0.0


BENCHMARKS = {
    NAME: Official(
        name=NAME,
        title="Zero-shot classification (ELEVATER)",
        ability="zero-shot classification",
        files=(File(CLASSES), File(PROMPTS), *(File(f"{name}/{INDEX}", needed=False) for name in SETS)),
        source=f"{CLASSES} and {PROMPTS}: clip_benchmark/datasets of github.com/LAION-AI/CLIP_benchmark (MIT). To it "
        "hateful-memes is added from prompts.py of github.com/Computer-Vision-in-the-Wild/Elevater_Toolkit_IC (MIT), "
        f"whose sets bring their index: SET/{INDEX}.",
        pictures=f"{NAME}/SET/, each archive of a set unpacked into a folder of its name",
        load=load,
        score=score,
        metrics=metrics,
        headline="mean",
        chance={f"hateful-memes {AUC}": 50.0},
        constant={f"hateful-memes {AUC}": 50.0},
    )
}
