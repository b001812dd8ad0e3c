"""NLVR2: is a sentence true of two photographs? (Suhr, Zhou, Zhang, Zhang, Bai, Artzi, ACL 2019)

lil-lab/nlvr, annotations CC-BY-4.0, photographs by form. An identifier is split-set-pair-sentence. Consistency: of each
sentence, all its pairs right; the key is the identifier without the pair. Labels are the words "True" and "False":
Python's truth of both is true. The official scorer reads predictions and has no rule for ties; here a tie is wrong.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data.params import UserError
from training.official import files
from training.official.contract import Exam, File, Official, Picture
from training.official.scoring import means
from training.official.statements import both, labelled

NAME = "nlvr2"
CLASSES = ("False", "True")
SCORED, TRAIN = ("dev", "test1", "test2"), "train"  # test1 is what papers call test-P
SOURCE = (
    "Sentences: github.com/lil-lab/nlvr, nlvr2/data (CC-BY-4.0); photographs by the form at lil.nlp.cornell.edu/nlvr."
)


def load(folder: Path) -> pa.Table:
    """dev, and test1 and test2 where they are installed: item_id, group (the set), pictures, text, label."""
    found = [_items(folder, split) for split in SCORED if split == "dev" or files.find(folder, f"{split}.json")]
    return pa.concat_tables(found)


def fit_items(folder: Path) -> pa.Table | None:
    """The training split in the same form, None where it is not installed."""
    return _items(folder, TRAIN) if files.find(folder, f"{TRAIN}.json") else None


def score(items: pa.Table, exam: Exam) -> pa.Table:
    pairs = [(Picture(left), Picture(right)) for left, right in items["pictures"].to_pylist()]
    found = exam.classes_of_pairs(NAME, pairs, items["text"].to_pylist(), CLASSES)
    names, made = [name.split("-") for name in items["item_id"].to_pylist()], []
    for split in dict.fromkeys(name[0] for name in names):
        rows = pc.starts_with(items["item_id"], f"{split}-")
        sentences = [sentence_of("-".join(name)) for name in names if name[0] == split]
        part = found[rows.to_numpy(zero_copy_only=False)]
        made.append(both(NAME, items.filter(rows), part, CLASSES, sentences, f"{split} "))
    return pa.concat_tables(made)


def sentence_of(identifier: str) -> str:
    """The key of a sentence: its identifier without the pair. "dev-850-0-1" and "dev-850-3-1" share one."""
    split, number, _, sentence = identifier.split("-")
    return f"{split}-{number}-{sentence}"


def _items(folder: Path, split: str) -> pa.Table:
    path, rows = f"{split}.json", []
    for line, entry in files.read_json_lines(folder, path):
        where = f"{folder / path}: line {line}"
        name, text, label = (files.field(entry, key, str, where) for key in ("identifier", "sentence", "label"))
        parts = name.split("-")
        if len(parts) != 4 or parts[0] != split or not all(part.isdigit() for part in parts[1:]):
            raise UserError(f"{where}: `identifier` {name} is no {split}-set-pair-sentence. Fetch the file again.")
        below = f"{files.field(entry, 'directory', int, where)}/" if split == TRAIN else ""
        stem = f"{NAME}/images/{split}/{below}{'-'.join(parts[:3])}"
        rows.append((name, int(parts[1]), [f"{stem}-img0.png", f"{stem}-img1.png"], text, label))
    return labelled(rows, CLASSES, folder / path)


BENCHMARKS = {
    NAME: Official(
        name=NAME, title="NLVR2", ability="comparing, counting and relating over two photographs",
        files=(File("dev.json"), *(File(f"{split}.json", needed=False) for split in ("test1", "test2", TRAIN))),
        source=SOURCE, pictures="nlvr2/images/{dev,test1,test2}, and images/train/{directory} to fine-tune",
        asks="head", load=load, score=score, metrics=means, headline="dev accuracy", chance={"dev accuracy": 50.0},
    )
}  # fmt: skip
