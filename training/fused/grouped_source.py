"""Batches of near neighbours: an epoch reads the order that was made of what the epoch before it collected.

Epoch 0 is random. Every step of an epoch notes the student's features of its rows; a full queue of them is chained
into near neighbours (`training.fused.grouping`), and so is what is left at the epoch's end. Several processes see the
same gathered features and so make the same order. The order is state: a resumed run gets it from the checkpoint.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.distributed import Outputs
from training.fused.grouping import Collected, Picks, Rule, mini_batches, regroup, take_in, text_ids
from training.sampling import TYPES, Integers, draws, epoch_batches
from training.source import Source
from training.task import Batch
from training.texts import caption_kinds

KINDS_OF_PICK = ("rule", "fallback", "forced")
GROUPING = 9  # random stream of (seed, epoch) apart from those of `training.sampling`


@dataclass(frozen=True)
class Grouping:
    """How batches are grouped.

    Attributes:
        rule: which neighbour comes next.
        queue: pairs collected before they are grouped.
        space: elements a chain is made of; rounded down to whole batches.
    """

    rule: Rule
    queue: int
    space: int


class GroupedSource(Source):
    """A `Source` whose epochs from the second on are grouped; without `grouping` all are random."""

    grouping: Grouping | None = None

    def group(self, grouping: Grouping | None) -> None:
        """Say how to group, before the first batch."""
        self.grouping = grouping
        self.rates = torch.zeros(len(KINDS_OF_PICK))  # shares of the present epoch's picks, by kind
        self._collected: list[Collected] = []
        self._grouped: list[Integers] = []
        self._picks: Picks = collections.Counter()
        self._same = text_ids(self.texts.distinct)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch: the same in all of them."""
        return len(self._first)

    @property
    def steps(self) -> int:
        return self.per_epoch * self.config.epochs

    def starts_epoch(self, step: int) -> int | None:
        return None if step % self.per_epoch else step // self.per_epoch

    def observe(self, step: int, outputs: Outputs) -> None:
        """Collect the features `image` and `text` (B, d) of the step's rows; at an epoch's end, plan the next."""
        epoch = step // self.per_epoch
        if epoch + 1 == self.config.epochs:
            return
        if self.grouping is not None:
            self._collect(epoch, self.plan[step][1], outputs)
        if (step + 1) % self.per_epoch == 0:
            order = self._random(epoch + 1) if self.grouping is None else self._close(epoch)
            self.plan += [(epoch + 1, positions) for positions in order]

    def state(self) -> dict[str, Tensor]:
        """The present epoch's batches, and what was collected and grouped for the next."""
        epoch = self.plan[-1][0]
        rows = self._rows()
        return {
            "epoch": torch.tensor(epoch), "plan": torch.from_numpy(np.stack([p for e, p in self.plan if e == epoch])),
            "index": torch.from_numpy(rows.index), "image": torch.from_numpy(rows.image),
            "text": torch.from_numpy(rows.text),
            "grouped": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *self._grouped])),
            "picks": torch.tensor([self._picks[kind] for kind in KINDS_OF_PICK]), "rates": self.rates.clone(),
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        epoch = int(state["epoch"])
        # Steps of the epochs before are never read again; they keep their places.
        self.plan = [(e, positions) for e in range(epoch) for positions in self._first]
        self.plan += [(epoch, positions) for positions in state["plan"].numpy()]
        index, image, text = (state[key].numpy() for key in ("index", "image", "text"))
        self._collected = [self._row(epoch, index, image, text)] if len(index) else []
        self._grouped = [state["grouped"].numpy()]
        self._picks = collections.Counter(dict(zip(KINDS_OF_PICK, state["picks"].tolist(), strict=True)))
        self.rates.copy_(state["rates"])  # in place: the task logs this tensor
        self._ahead = None

    def _plan(self) -> list[tuple[int, Integers]]:
        self._first = self._random(0)
        return [(0, positions) for positions in self._first]

    def _random(self, epoch: int) -> list[Integers]:
        """Batches of ordinary random sampling, as many as epoch 0 has where its number allows."""
        made = epoch_batches(self.products.groups, self.config.batch, self.config.seed, epoch)
        wanted = len(made) if epoch == 0 else self.per_epoch
        return (made + self._first)[:wanted] if len(made) < wanted else made[:wanted]

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        batch: dict[str, Any] = dict(super()._make(step, positions, places))
        if "text" in batch:
            batch["text"] = torch.from_numpy(self._same[batch["text"].numpy()])
        return batch

    def _collect(self, epoch: int, positions: Integers, outputs: Outputs) -> None:
        image, text = (outputs[key].detach().float().cpu().numpy() for key in ("image", "text"))
        self._collected.append(self._row(epoch, positions, image, text))
        assert self.grouping is not None
        if sum(map(len, self._collected)) >= self.grouping.queue:
            self._chain(epoch)

    def _row(self, epoch: int, positions: Integers, image: Any, text: Any) -> Collected:
        """Rows with the text that the next epoch will show of each product: that is what must not meet its like."""
        chance = draws(len(self.products.row_ids), 1 + len(TYPES), self.config.seed, epoch + 1)[positions, 0]
        kinds = caption_kinds(self.own[positions], chance, self.config.title_share)
        words = self._same[self.own[positions, kinds]]
        return Collected(image, text, positions, self.products.groups[positions], words)

    def _rows(self) -> Collected:
        """All that is collected and not grouped yet."""
        none, width = np.zeros(0, np.int64), 0
        if self._collected:
            width = self._collected[0].image.shape[1]
        rows = Collected(np.zeros((0, width), np.float32), np.zeros((0, width), np.float32), none, none, none)
        return sum(self._collected, rows)

    def _chain(self, epoch: int) -> None:
        """Group what is collected; the queue is empty then."""
        assert self.grouping is not None
        rng = self._rng(epoch, sum(map(len, self._grouped)))
        order, picks = regroup(self._rows(), self.config.batch, self.grouping.space, self.grouping.rule, rng)
        self._grouped.append(order)
        self._picks.update(picks)
        self._collected = []

    def _close(self, epoch: int) -> list[Integers]:
        """The next epoch's batches; products that this one left out take part again."""
        if self._collected:
            self._chain(epoch)
        order, rng = np.concatenate(self._grouped), self._rng(epoch, -1)
        left_out = np.setdiff1d(np.arange(len(self.products.row_ids)), order)
        words = self._row(epoch, np.arange(len(self.products.row_ids)), None, None).words
        chunks = mini_batches(order, self.config.batch, rng)
        counts = torch.tensor([self._picks[kind] for kind in KINDS_OF_PICK], dtype=torch.float32)
        self.rates.copy_(counts / counts.sum().clamp_min(1))
        self._grouped, self._picks = [], collections.Counter()
        return take_in(chunks, left_out, self.products.groups, words, rng)

    def _rng(self, epoch: int, part: int) -> np.random.Generator:
        """Chance of one grouping; `part` counts what is grouped already, -1 for the shuffle of mini-batches."""
        return np.random.default_rng([self.config.seed, epoch, GROUPING, part + 1])
