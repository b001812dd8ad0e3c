"""VQA of a trained fused method: fine-tuning on questions with all their answers, and answering out of a list.

Fine-tuned is on VQAv2's training split alone, for the validation split is what is scored here; for the test server the
papers add that split and Visual Genome's questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from data import stage
from training.benchmarks import vqa
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.fused import tuning
from training.fused.answering import Answering, clean_question
from training.fused.heads.answers import HeadExam
from training.fused.heads.examples import Examples, ExampleSource, Shelf, Shown
from training.fused.heads.stack import regrid, stack_of
from training.official.contract import Picture, Vectors
from training.sampling import Integers
from training.task import Batch, Tokens
from training.texts import Texts

BLOCK = 8  # questions ranked at once: each with `keep` answers, and a logit for every word of the vocabulary


class Questions(ExampleSource):
    """Batches of questions with all their answers, each weighed by the share of people who gave it.

    Args:
        asked: rows with item_id, picture (path), question and answers.
    """

    def __init__(
        self, asked: Sequence[Mapping[str, Any]], encoder: DualEncoder, config: TrainerConfig, root: Path
    ) -> None:
        examples = Examples(
            [row["item_id"] for row in asked], [(Picture(row["picture"]),) for row in asked],
            [clean_question(row["question"]) for row in asked], np.zeros(len(asked), np.int64),
        )  # fmt: skip
        super().__init__(examples, encoder, config, root)
        self.given = [Counter(row["answers"]) for row in asked]
        self.answers = Texts([answer for given in self.given for answer in given], encoder)

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        given = [self.given[row] for row in positions]
        answers = np.array([self.answers.place[answer] for some in given for answer in some], np.int64)
        weights = [count / some.total() for some in given for count in some.values()]
        return {
            **super()._make(step, positions, places),
            "answers": self.answers.take(answers),
            "of": torch.arange(len(given)).repeat_interleave(torch.tensor([len(some) for some in given])),
            "weights": torch.tensor(weights, dtype=torch.float32),
        }


class RankedAnswers:
    """Answers by a fine-tuned decoder, which takes any list of candidates."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.head = folder, Answering.load(folder)
        if torch.cuda.is_available():
            self.head.cuda()
        self.shelf = Shelf(root, self.head.encoder.config.image_size)

    def classes(self, pictures: Sequence[Shown], texts: Sequence[str], names: Sequence[str]) -> Vectors:
        """Probabilities (N, C) of the candidates `names`."""
        encoder, device = self.head.encoder, self.head.encoder.logit_scale.device
        candidates = Tokens(*encoder.tokenize(names)).to(device)
        made = [np.zeros((0, len(names)), np.float32)]
        for start in range(0, len(texts), BLOCK):
            rows = slice(start, start + BLOCK)
            asked = Tokens(*encoder.tokenize([clean_question(text) for text in texts[rows]])).to(device)
            found = self.head.answer(self.shelf.take(pictures[rows]).to(device), asked, candidates)
            made.append(found.cpu().numpy())
        return np.concatenate(made)


def tune(run: stage.Run, settings: tuning.Settings, model: Path, root: Path, binding: str) -> None:
    """Fine-tune the model of a folder, save it into `run.out` and score it (`training.finetune`)."""
    from training.methods import load_task

    folder = tuning.installed(vqa.BENCHMARK, root, vqa.QUESTIONS.format("train"), vqa.ANNOTATIONS.format("train"))
    how, method = settings.tuning, load_task(model)
    encoder, stack = stack_of(method, 1)
    regrid(encoder, how.grid or encoder.image.trunk.grid, how.max_tokens)
    config = Answering.Config(
        task=settings.task, method=tuning.name_of(method), shape=stack.shape, alpha=how.alpha, ramp=how.ramp,
        layers=max(1, (len(encoder.text.trunk.layers) + len(stack.layers)) // 2),
    )  # fmt: skip
    torch.manual_seed(how.trainer.seed)
    task = Answering(config, encoder, stack)
    task.decoder.begin(encoder.text.trunk, stack, cast(Any, method.mlm))
    task.begin()
    source = Questions(vqa.entries(folder, "train"), encoder, how.trainer, root)
    tuning.fit(run, task, source, settings, binding)
    tuning.score(run, vqa.BENCHMARK, HeadExam(cast(Any, RankedAnswers(run.out, root))), root)
