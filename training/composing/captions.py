"""Batches of captions for language-only training: tokenised once, masked texts too, frozen targets taken once.

Only captions that lose a random word are masked anew with every epoch. Captions N, rows of a batch B, shared space P.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data import stage
from data.keywords import Keyword, KeywordMode, is_random, keywords_of, mask
from data.params import UserError, canonical_hash
from training.composing.pseudo_words import Composer, MarkedTexts
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.sampling import Integers
from training.source import pieces_of
from training.task import Batch, Tokens

CACHE = Path("runs/cache/targets")
FILE = "corpus.parquet"
CHUNK = 4096  # captions tokenised at once
PASS = 256  # captions per pass of the text tower
_ORDER, _WORDS = 0, 1  # independent random streams of one epoch
TARGET_TYPES = {"fp32": np.float32, "bf16": np.float16}  # float16 is finer than what a pass in bf16 can tell apart


class Ragged:
    """Token ids of N texts in one array, two bytes each where the vocabulary allows it."""

    def __init__(self, rows: Sequence[Sequence[int]], vocabulary: int) -> None:
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = np.fromiter((i for row in rows for i in row), np.min_scalar_type(vocabulary), self.lengths.sum())
        self.fixed = len(self.flat)

    def take(self, places: Integers) -> Tokens:
        """The texts at `places` (B), padded with zeros to the longest of them."""
        lengths = self.lengths[places]
        column = np.arange(int(lengths.max(initial=1)))
        inside = column < lengths[:, None]
        ids = np.where(inside, self.flat[np.where(inside, self.starts[places][:, None] + column, 0)], 0)
        return Tokens(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(inside.astype(np.int64)))

    def put(self, places: Integers, rows: Sequence[Sequence[int]]) -> None:
        """Texts in place of those at `places`; what an earlier call put there goes."""
        self.lengths[places] = [len(row) for row in rows]
        self.starts[places] = self.fixed + np.cumsum(self.lengths[places]) - self.lengths[places]
        fresh = np.array([i for row in rows for i in row], self.flat.dtype)
        self.flat = np.concatenate([self.flat[: self.fixed], fresh])


class Captions:
    """N captions and their masked forms as tokens. `redraw` masks those with a random word anew."""

    def __init__(self, captions: Sequence[tuple[str, list[Keyword]]], encoder: DualEncoder, mode: KeywordMode) -> None:
        vocabulary = encoder.tokenizer.get_vocab_size()
        self.marked, self.mode = MarkedTexts(encoder), mode
        cut, ids = _tokenised(captions, encoder)
        self.texts = Ragged(ids, vocabulary)
        self.random = np.array([i for i, c in enumerate(cut) if is_random(*c, mode)], np.int64)
        self._random = [cut[i] for i in self.random.tolist()]
        masked = [mask(*c, mode) for c in cut]
        self.masked = Ragged(_in_chunks(self.marked.encode, masked), vocabulary)
        self.digest = hashlib.sha256("\n".join(text for text, _ in cut).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.texts.lengths)

    def rows(self, start: int, stop: int) -> Integers:
        """Places from `start` on, before `stop` and the end."""
        return np.arange(start, min(stop, len(self)))

    def redraw(self, chance: npt.NDArray[np.float64]) -> None:
        """Mask the captions at `random` by the given numbers in [0, 1), one each."""
        if len(self.random):
            drawn = zip(self._random, chance.tolist(), strict=True)
            texts = [mask(text, keywords, self.mode, x) for (text, keywords), x in drawn]
            self.masked.put(self.random, self.marked.encode(texts))


def load_captions(corpus: Path, encoder: DualEncoder, mode: KeywordMode, *, held_out: bool) -> Captions:
    """The captions of a corpus that are held out, or those that are not. Raises `UserError` if there are none."""
    path = corpus / FILE
    if not path.is_file():
        raise UserError(f"{path}: not found. Make it with `dvc repro corpus`.")
    table = pq.read_table(path, filters=[("held_out", "==", held_out)], columns=["caption", "keywords"])
    if not table.num_rows:
        raise UserError(f"{path}: no captions of that side; set corpus.held_out between 0 and 1 and build it again.")
    return Captions([(row["caption"], keywords_of(row)) for row in table.to_pylist()], encoder, mode)


class CaptionSource:
    """Batches with `masked` Tokens, `target` (B, P) or else `caption` Tokens, and `place`. See training.source.Batches.

    Every epoch takes the captions in a new order and leaves the last incomplete batch out.
    """

    def __init__(
        self, captions: Captions, config: TrainerConfig, targets: npt.NDArray[Any] | None, steps: int | None
    ) -> None:
        self.captions, self.config, self.targets = captions, config, targets
        self.each = len(captions) // config.batch
        if not self.each:
            raise UserError(f"trainer.batch: {config.batch} is more than the {len(captions)} captions; lower it.")
        self.steps = steps or config.epochs * self.each
        self.pieces = pieces_of(config)
        self._drawn: tuple[int, Integers] = (-1, np.zeros(0, np.int64))

    def starts_epoch(self, step: int) -> int | None:
        return step // self.each if step % self.each == 0 else None

    def progress(self, step: int) -> float:
        return step / self.each

    def row_ids(self, step: int) -> list[str]:
        """Captions have no row: their places in the corpus' training side."""
        return [str(place) for place in self._places(step).tolist()]

    def batches(self, step: int) -> list[Batch]:
        places = self._places(step)
        return [self._make(places[rows], np.arange(rows.start, rows.stop)) for rows in self.pieces]

    def observe(self, step: int, outputs: Outputs) -> None:
        """Batches here depend on (seed, epoch) alone."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is none."""

    def close(self) -> None:
        """Nothing runs beside the loop: a batch is made in less than a thousandth of a step."""

    def _places(self, step: int) -> Integers:
        epoch, batch = divmod(step, self.each)
        if self._drawn[0] != epoch:
            order, words = (np.random.default_rng([self.config.seed, epoch, use]) for use in (_ORDER, _WORDS))
            self._drawn = (epoch, order.permutation(len(self.captions)))
            self.captions.redraw(words.random(len(self.captions.random)))
        return self._drawn[1][batch * self.config.batch : (batch + 1) * self.config.batch]

    def _make(self, places: Integers, rows: Integers) -> Batch:
        batch = {"place": torch.from_numpy(rows), "masked": self.captions.masked.take(places)}
        if self.targets is None:
            return {**batch, "caption": self.captions.texts.take(places)}
        return {**batch, "target": torch.from_numpy(self.targets[places])}


def cached_targets(task: Composer, captions: Captions, precision: str, name: str) -> npt.NDArray[Any]:
    """t of every caption (N, P), mapped from a file that any run with the same encoder and captions shares."""
    kind = TARGET_TYPES[precision]
    path = CACHE / f"{fingerprint(task.encoder, captions, precision)}.npy"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")
        shape = (len(captions), task.embed_width)
        made = np.lib.format.open_memmap(partial, mode="w+", dtype=kind, shape=shape)
        _fill(made, task, captions, precision, name)
        made.flush()
        partial.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def fingerprint(encoder: DualEncoder, captions: Captions, precision: str) -> str:
    """What t depends on: text weights and architecture, tokenizer, captions, number format."""
    digest = hashlib.sha256(canonical_hash([encoder.config.text, encoder.config.max_tokens, precision]).encode())
    for name, tensor in encoder.text.state_dict().items():
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(f"{encoder.tokenizer.to_str()}\n{captions.digest}".encode())
    return digest.hexdigest()[:32]


@torch.no_grad()  # not inference mode: what the task keeps of this pass must serve training
def _fill(made: npt.NDArray[Any], task: Composer, captions: Captions, precision: str, name: str) -> None:
    device = task.encoder.logit_scale.device
    order = np.argsort(captions.texts.lengths, kind="stable")
    task.train()  # the same arithmetic as in a step; φ and its dropout have no part in it
    task.precision = torch.bfloat16 if precision == "bf16" else torch.float32
    starts = range(0, len(order), PASS)
    for start in stage.progress(starts, what=f"batches of {PASS} captions", label=f"{name}: targets"):
        rows = order[start : start + PASS]
        made[rows] = task.embed(captions.texts.take(rows).to(device)).cpu().numpy()


def _tokenised(
    captions: Sequence[tuple[str, list[Keyword]]], encoder: DualEncoder
) -> tuple[list[tuple[str, list[Keyword]]], list[list[int]]]:
    """Captions cut to what the encoder reads, their keywords too, and their ids."""
    cut, ids = [], []
    for start in range(0, len(captions), CHUNK):
        part = captions[start : start + CHUNK]
        for (text, keywords), found in zip(part, encoder.tokenizer.encode_batch([t for t, _ in part]), strict=True):
            length = sum(found.attention_mask)
            end = found.offsets[length - 2][1] if found.overflowing else len(text)
            kept = [Keyword(k.start, end, text[k.start : end]) if k.end > end else k for k in keywords if k.start < end]
            cut.append((text[:end], kept))
            ids.append(found.ids[:length])
    return cut, ids


def _in_chunks(encode: Any, texts: Sequence[str]) -> list[list[int]]:
    return [ids for start in range(0, len(texts), CHUNK) for ids in encode(texts[start : start + CHUNK])]
