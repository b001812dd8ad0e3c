"""SNLI-VE: does a photograph entail a sentence, contradict it, or leave it open? (Xie, Lai, Doran, Kadav 2019)

arXiv 1901.06706, necla-ml/SNLI-VE, made from SNLI and Flickr30k. The premise is the photograph alone: SNLI's caption of
it, `sentence1`, would give the answer away. The official scorer reads predictions; here a tie is wrong.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official import files
from training.official.contract import Exam, File, Official, Picture
from training.official.scoring import means
from training.official.statements import accuracy, labelled

NAME = "snli_ve"
CLASSES = ("contradiction", "neutral", "entailment")  # in the order of ALBEF's outputs
SCORED, TRAIN = ("dev", "test"), "train"
SOURCE = (
    "snli_ve_{train,dev,test}.jsonl: github.com/necla-ml/SNLI-VE (BSD-2 code; SNLI CC-BY-SA-4.0); photographs: "
    "Flickr30k, by its request form."
)


def load(folder: Path) -> pa.Table:
    """dev and test: item_id (split and pairID), group (the photograph), pictures, text, label."""
    return pa.concat_tables([_items(folder, split) for split in SCORED])


def fit_items(folder: Path) -> pa.Table | None:
    """The training split in the same form, None where it is not installed."""
    return _items(folder, TRAIN) if files.find(folder, _path(TRAIN)) else None


def score(items: pa.Table, exam: Exam) -> pa.Table:
    pictures = [Picture(paths[0]) for paths in items["pictures"].to_pylist()]
    found, made = exam.classes(NAME, pictures, items["text"].to_pylist(), CLASSES), []
    for split in SCORED:
        rows = pc.starts_with(items["item_id"], f"{split} ")
        part = found[rows.to_numpy(zero_copy_only=False)]
        if len(part):
            made.append(accuracy(NAME, items.filter(rows), part, CLASSES, metric=f"{split} accuracy"))
    return pa.concat_tables(made)


def _path(split: str) -> str:
    return f"snli_ve_{split}.jsonl"


def _items(folder: Path, split: str) -> pa.Table:
    rows = []
    for line, entry in files.read_json_lines(folder, _path(split)):
        where = f"{folder / _path(split)}: line {line}"
        fields = ("pairID", "Flickr30K_ID", "sentence2", "gold_label")
        name, photograph, text, label = (files.field(entry, key, str, where) for key in fields)
        number = photograph.removesuffix(".jpg")
        if not number.isdigit():
            raise UserError(f"{where}: `Flickr30K_ID` {photograph} is no number. Fetch the official file again.")
        rows.append((f"{split} {name}", int(number), [f"flickr30k/{number}.jpg"], text, label))
    return labelled(rows, CLASSES, folder / _path(split))


BENCHMARKS = {
    NAME: Official(
        name=NAME, title="SNLI-VE", ability="entailment of a sentence by a photograph",
        files=(*(File(_path(split)) for split in SCORED), File(_path(TRAIN), needed=False)),
        source=SOURCE, pictures="flickr30k", asks="head", load=load, score=score, metrics=means,
        headline="test accuracy", chance={f"{split} accuracy": 100 / 3 for split in SCORED},
    )
}  # fmt: skip
