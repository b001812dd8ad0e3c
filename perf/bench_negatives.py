"""P8: captions per second given hard negatives, against NegCLIP's generator and a masked language model's forward pass.

Ours counts everything a stage run does: vocabulary, facts and trigrams of the catalog, then up to four candidates of
every edit type. NegCLIP's is spaCy's tagger and parser and the swaps. Models are loaded beforehand on all sides. The
masked language model has BERT-base's shape and random weights (speed does not depend on them), and answers one masked
string per caption, where CE-CLIP's generator asks three; it sees few captions, and its time is scaled to all of them.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from typing import Any

from data import schema
from data.mapping import FASHION
from data.negatives import captions
from data.negatives.build import generate, make_generator
from data.negatives.captions import CAPTION_KINDS, Product
from data.negatives.swaps import swap_table
from data.negatives.synonyms import SameMeaning, SmallThesaurus
from data.negatives.tagger import parse
from perf.bench import ROOT, Row, paired, speed_row

CATALOG = ROOT / "data" / "starter" / "drop-1" / "catalog.csv"
CANDIDATES, SEED = 4, 17


def products(many: int) -> list[dict[str, Any]]:
    """The first rows of the starter catalog as the dataset has them, all in train, each in a group of its own."""
    with CATALOG.open(encoding="utf-8", newline="") as stream:
        found = [row for row, _ in zip(csv.DictReader(stream), range(many), strict=False)]
    names = schema.find_columns(found[0])
    rows = []
    for number, source in enumerate(found):
        row = {name: schema.value(source[spelled]) for name, spelled in names.items()}
        rows.append({**row, "catalog": FASHION.catalog, "row_id": f"{number:08}", "group": number, "split": "train"})
    return rows


def ours(rows: list[dict[str, Any]]) -> Callable[[], float]:
    """Seconds from the rows of a dataset to the table of negatives."""

    def once() -> float:
        captions.read.cache_clear()
        begun = time.process_time()
        generator = make_generator(rows, SEED, CANDIDATES)
        generate(generator, map(Product.of, rows), CANDIDATES)
        return time.process_time() - begun

    return once


def swaps(texts: list[str]) -> Callable[[], float]:
    """Seconds of NegCLIP's generator."""

    def once() -> float:
        begun = time.process_time()
        swap_table(texts, SEED)
        return time.process_time() - begun

    return once


def masked(texts: list[str], few: int) -> Callable[[], float]:
    """Seconds that one masked string per caption would take, by those of the first `few`."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(BertConfig()).eval()
    lengths = sorted(2 + len(text.split()) * 4 // 3 for text in texts[:few])  # word pieces, about
    batches = [torch.randint(1000, 30000, (16, max(lengths[i : i + 16]))) for i in range(0, few, 16)]

    def once() -> float:
        begun = time.process_time()
        with torch.inference_mode():
            for batch in batches:
                model(input_ids=batch)
        return (time.process_time() - begun) * len(texts) / few

    return once


def run(smoke: bool) -> list[Row]:
    rows = products(1000 if smoke else 4000)
    texts = [text for row in rows for kind in CAPTION_KINDS if (text := Product.of(row).caption(kind))]
    list(parse(texts[:8]))  # spaCy and lemminflect are loaded
    generator = make_generator(rows[:8], SEED, CANDIDATES)
    term, other = generator.lexicon.terms[:2]
    SameMeaning(SmallThesaurus()).reason(term, other)
    rounds = 3 if smoke else 5
    what = "hard negatives, processor seconds"
    made = []
    for peer, theirs, goal in (
        ("NegCLIP's swaps (spaCy)", swaps(texts), {}),
        ("BERT-base, one masked string a caption", masked(texts, 32), {"id": "P8", "floor": 1000.0}),
    ):
        pairs = paired(ours(rows), theirs, rounds)
        made.append(speed_row(pairs, len(texts), what=what, peer=peer, unit="captions/s", **{"id": "", **goal}))
    return made
