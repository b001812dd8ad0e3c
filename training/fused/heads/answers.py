"""Fine-tuned heads before official benchmarks: what `training.official.contract.Exam` asks of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data.params import UserError
from training.fused.heads.examples import Shelf, Shown, answer
from training.fused.heads.head import Head
from training.fused.heads.tuned import HEAD
from training.official.contract import Picture, Vectors
from training.official.exam import CannotSit

FINETUNED = Path("store/finetuned")
FITTED = "fitted.parquet"  # scored items that a head was fitted on, where a benchmark has no training part
COLUMNS = ("pictures", "text")


def folder_of(model: str, task: str) -> Path:
    """Where the head of a model for a task lies."""
    return FINETUNED / f"{model}-{task}"


class Answers:
    """Probabilities by one head. Raises `UserError` where it was not fine-tuned, or was fitted on what it is asked."""

    def __init__(self, folder: Path, root: Path) -> None:
        if not (folder / HEAD).is_file():
            model, _, task = folder.name.partition("-")
            raise UserError(
                f"{folder}: no head, so {task} cannot be answered. Run `python -m training.finetune {model} {task}`."
            )
        self.folder = folder
        self.head = Head.load(folder)
        if torch.cuda.is_available():
            self.head.cuda()
        self.shelf = Shelf(root, self.head.encoder.config.image_size)
        self.fitted = _fitted(folder / FITTED)

    def classes(self, pictures: Sequence[Shown], texts: Sequence[str], names: Sequence[str]) -> Vectors:
        """Probabilities (N, C) of `names`, which must be classes of the head; scaled to sum to 1."""
        known = self.head.config.classes
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{self.folder}: does not know the class `{unknown[0]}`. Fine-tune the model again.")
        if self.fitted:
            asked = zip(pictures, texts, strict=True)
            seen = sum((*(picture.path for picture in row if picture), text) in self.fitted for row, text in asked)
            if seen:
                raise CannotSit(
                    f"{self.folder}: was fitted on {seen:,} of the {len(texts):,} items it is asked, for the "
                    "benchmark's training part is not installed. Its held-out score is in its record; install that "
                    "part and fine-tune again to score all."
                )
        found = answer(self.head, pictures, texts, self.shelf)[:, [known.index(name) for name in names]]
        return found / found.sum(1, keepdims=True)


class HeadExam:
    """A head as an exam of its own task, for the score at the end of fine-tuning."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def images(self, pictures: Sequence[Picture]) -> Vectors:
        raise self._refused()

    def texts(self, texts: Sequence[str]) -> Vectors:
        raise self._refused()

    def compose(self, pictures: Sequence[Picture], changes: Sequence[str]) -> Vectors:
        raise self._refused()

    def match(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        raise self._refused()

    def classes(
        self, task: str, pictures: Sequence[Picture | None], texts: Sequence[str | None], names: Sequence[str]
    ) -> Vectors:
        if task != self.answers.head.config.task:
            raise self._refused()
        return self.answers.classes([(picture,) for picture in pictures], self.said(texts), names)

    def classes_of_pairs(
        self, task: str, pictures: Sequence[tuple[Picture, Picture]], texts: Sequence[str], names: Sequence[str]
    ) -> Vectors:
        if task != self.answers.head.config.task:
            raise self._refused()
        return self.answers.classes(pictures, texts, names)

    def maps(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        raise self._refused()

    def training_texts(self) -> list[str]:
        raise self._refused()

    def said(self, texts: Sequence[str | None]) -> list[str]:
        """The texts, none of which may be absent."""
        if None in texts:
            raise self._refused()
        return [text for text in texts if text is not None]

    def _refused(self) -> UserError:
        return UserError(f"{self.answers.folder}: a head answers its own task only, and needs a text.")


def write_fitted(path: Path, items: pa.Table) -> None:
    """Note which items were fitted on."""
    pq.write_table(items.select(COLUMNS), path)


def _fitted(path: Path) -> set[tuple[str, ...]]:
    if not path.is_file():
        return set()
    table = pq.read_table(path)
    return {(*row, text) for row, text in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)}
