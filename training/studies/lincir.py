"""Study: LinCIR with and without its noise against Pic2Word, a text, an image, and their sum, on composed queries.

All arms stand on `base` as it is. LinCIR learns φ from the captions of the corpus, Pic2Word from the pictures of the
same products; both take as many steps with as many rows, and are asked with the same prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from data.params import canonical_hash
from training import checkpoint, trainer, zero_shot
from training.benchmarks import composed_retrieval
from training.composing.pseudo_words import Composer
from training.config import TrainerConfig
from training.encoder import load_encoder
from training.examiner import Examiner
from training.methods.lincir import LinCir
from training.source import IMAGES
from training.studies.pic2word import Pic2Word
from training.studies.study import Study
from training.task import BASE, DATASET

SUITES = Path("store/suites")
STEPS, ROWS = 100, 256
EPOCHS = 3  # that hold so many steps of pictures
PROMPT = "a photo of $ {condition}"  # the suite's conditions are "in red", "for women", not sentences
Vectors = npt.NDArray[np.float32]
Compose = Callable[[Sequence[str], Sequence[str]], Vectors]

ARMS = {
    "LinCIR": "φ learnt from captions alone, with noise",
    "LinCIR, no noise": "the same, φ sees caption embeddings as they are",
    "Pic2Word": "φ learnt from pictures alone, by contrast",
    "sum": "normalised sum of the photo's and the wish's embedding",
    "image only": "the photo's embedding",
    "text only": "the wish's embedding",
}


def run(arm: str, seed: int) -> pa.Table:
    """Outcomes of the composed suite for an arm."""
    benchmark, base = composed_retrieval.BENCHMARK, examiner()
    compose = untrained(arm, base) or trained(arm, seed)
    found = benchmark.score(benchmark.items(SUITES), Answers(base, compose))
    return found.filter(pc.is_in(found["metric"], pa.array([f"R@{k}" for k in composed_retrieval.AT])))


def untrained(arm: str, base: Examiner) -> Compose | None:
    """How an arm that learns nothing answers; None for the others."""
    return {
        "sum": lambda keys, conditions: zero_shot.compose(base.images(keys), base.texts(conditions)),
        "image only": lambda keys, conditions: base.images(keys),
        "text only": lambda keys, conditions: base.texts(conditions),
    }.get(arm)


def trained(arm: str, seed: int) -> Compose:
    """Train an arm's φ; how it answers then."""
    torch.manual_seed(seed)
    task = method(arm)
    config = settings(seed)
    name = f"study lincir {arm} {seed}"
    source = task.source(config, name)
    binding = canonical_hash({"arm": arm, "trainer": config, "settings": task.config})
    trainer.fit(task, source, config, name=name, binding=binding)
    checkpoint.clear(trainer.RUNS / name)
    task.cpu().eval()
    return lambda keys, conditions: task.compose(DATASET / IMAGES, keys, conditions)


def method(arm: str) -> Composer:
    """The method of an arm at its start."""
    encoder = load_encoder(BASE)
    if arm == "Pic2Word":
        return Pic2Word(Pic2Word.Config(prompt=PROMPT, steps=STEPS), encoder)
    return LinCir(LinCir.Config(prompt=PROMPT, noise=arm == "LinCIR", steps=STEPS), encoder)


def settings(seed: int) -> TrainerConfig:
    """One budget for all: `STEPS` steps of `ROWS` rows, in LinCIR's recipe but for the higher rate of a short run."""
    return TrainerConfig(
        epochs=EPOCHS, batch=ROWS, lr=3e-4, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8, schedule="constant",
        warmup=0, seed=seed, frozen=("image.trunk",), log_every=20, threads=1, checkpoint_every=10**6,
    )  # fmt: skip


class Answers:
    """`base` under examination, with another answer to composed queries."""

    def __init__(self, base: Examiner, compose: Compose) -> None:
        self._base, self.compose = base, compose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


@functools.cache
def examiner() -> Examiner:
    """`base`, whose embeddings all arms and seeds share."""
    return Examiner(BASE, DATASET)


STUDY = Study(
    name="lincir",
    title="LinCIR on composed retrieval",
    claim="Learnt from captions alone, with noise for the gap between texts and images, a pseudo word answers composed "
    "queries better than one learnt from pictures, and better than adding embeddings.",
    arms=ARMS,
    reference="LinCIR",
    run=run,
    seconds=30,
    headline=tuple((composed_retrieval.NAME, f"R@{k}", "") for k in (1, 10)),
    code=(
        "training/studies/pic2word.py", "training/methods/lincir.py", "training/composing/pseudo_words.py",
        "training/composing/captions.py", "training/ranking.py",
    ),
    note="Right are photos of products that differ from the asked one in exactly the wished attribute; its own photo "
    "is taken out. Text, image and sum learn nothing: their seeds are one and the same run.",
)  # fmt: skip
