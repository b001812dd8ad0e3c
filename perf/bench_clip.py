"""P2 and the waiting part of P6: CLIP fine-tuning on real files, against open_clip_train's own epoch function."""

from __future__ import annotations

import csv
import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip import ClipLoss, SimpleTokenizer
from open_clip.transform import AugmentationCfg, image_transform
from open_clip_train.data import CsvDataset, DataInfo
from open_clip_train.params import parse_args
from open_clip_train.train import train_one_epoch

from perf import clips
from perf.bench import Pairs, Row, paired, speed_row, workspace
from training.features import read_jpegs
from training.methods.clip import Clip
from training.source import IMAGES, Pixels, Products, Source
from training.task import DATASET
from training.trainer import Run

CROP, WORKERS = 0.9, 2


class Ours:
    """The trainer on a source of its own; every call trains `steps` further steps."""

    def __init__(self, config: dict[str, Any], products: Products, batch: int, steps: int, rounds: int) -> None:
        self.encoder = clips.ours(config)
        settings = clips.trainer(batch=batch, crop=CROP, epochs=rounds * steps * batch // len(products.row_ids) + 2)
        pictures = Pixels(self.encoder, DATASET, products.image_keys, CROP)
        self.source = Source(products, self.encoder, pictures, settings, Clip.needs)
        self.run = Run(Clip(Clip.Config(), self.encoder), self.source, settings, "perf", "0" * 64)
        self.run.resume()
        self.steps, self.done, self.waited, self.loss = steps, 0, 0.0, 0.0
        self._batches, self.source.batches = self.source.batches, self._timed  # type: ignore[method-assign]

    def _timed(self, step: int) -> Any:
        begun = time.perf_counter()
        found = self._batches(step)
        self.waited += time.perf_counter() - begun
        return found

    def __call__(self) -> float:
        self.waited, begun = 0.0, time.perf_counter()
        for _ in range(self.steps):
            self.run.step(self.done)
            self.done += 1
        self.loss = float(self.run.watch[-1][1]["loss"])
        self.run.demand_finite()
        return time.perf_counter() - begun

    def order(self, steps: int) -> list[int]:
        """The products of the next steps, batch after batch."""
        return [int(p) for _, positions in self.source.plan[self.done : self.done + steps] for p in positions]


class Loader:
    """A DataLoader that notes when its first batch was there; start-up is not what is compared."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.num_batches, self.num_samples, self.begun = loader, len(loader), len(loader.dataset), 0.0

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.loader):
            if number == 0:
                self.begun = time.perf_counter()
            yield batch


class Theirs:
    """open_clip_train on the same files in the same order; every call is an epoch over the next `steps` batches."""

    def __init__(self, config: dict[str, Any], side: Ours, folder: Path, batch: int) -> None:
        self.model, self.side, self.folder, self.batch, self.loss = (
            clips.theirs(config, side.encoder), side, folder, batch, 0.0,
        )  # fmt: skip
        self.optimiser = clips.adamw(self.model, side.run.config, fused=False)
        size = config["vision_cfg"]["image_size"]
        self.transform = image_transform(size, is_train=True, aug_cfg=AugmentationCfg(scale=(CROP, 1.0)))
        self.args = parse_args(["--device", "cpu", "--skip-scheduler", "--batch-size", str(batch)])
        vars(self.args).update(rank=0, local_rank=0, world_size=1, horovod=False, wandb=False, distill=False)
        self.rows: list[int] = []

    def epoch(self, precision: str, rows: list[int]) -> float:
        table = self.folder / "train.csv"
        products = self.side.source.products
        with table.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(["filepath", "title"])
            writer.writerows([self.folder / f"{row}.jpg", products.captions[row][0]] for row in rows)
        data = CsvDataset(str(table), self.transform, "filepath", "title", tokenizer=SimpleTokenizer())
        loader = Loader(torch.utils.data.DataLoader(data, self.batch, num_workers=WORKERS, drop_last=True))
        self.args.precision, self.args.log_every_n_steps = precision, loader.num_batches
        board = self
        train_one_epoch(
            self.model, {"train": DataInfo(loader)}, ClipLoss(), 0, self.optimiser, None, None, None, self.args, board
        )
        return time.perf_counter() - loader.begun

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """What open_clip_train tells TensorBoard."""
        if name == "train/loss":
            self.loss = value


def compare(config: dict[str, Any], name: str, batch: int, steps: int, rounds: int, goal: bool) -> list[Row]:
    """Rows for autocast and for float32, and one for how long our step waits for data."""
    with workspace() as folder:
        products = clips.products(max(1024, batch * steps))
        ours = Ours(config, products, batch, steps, rounds + 1)
        _write_files(products, folder)
        theirs = Theirs(config, ours, folder, batch)
        waits: list[float] = []
        gaps: list[float] = []
        orders = iter(
            [ours.order(steps * (rounds + 1))[i * batch * steps : (i + 1) * batch * steps] for i in range(99)]
        )

        def mine() -> float:
            taken = ours()
            waits.append(ours.waited / taken)
            return taken

        pairs = paired(mine, lambda: theirs.epoch("amp_bf16", next(orders)), rounds)
        gaps.append(abs(ours.loss - theirs.loss) / theirs.loss)
        short = ours.order(0) or list(range(batch * max(2, steps // 3)))
        plain = theirs.epoch("fp32", short) * steps * batch / len(short)
        against = Pairs(pairs.ours, [plain] * len(pairs.ours))
    fields: dict[str, Any] = {"what": f"{name} fine-tuning, real files", "unit": "pairs/s"}
    check = {"check": f"losses differ by {gaps[-1]:.2%}", "fair": gaps[-1] < 0.01}
    ids = {"id": "P2" if goal else ""}
    wait = statistics.median(waits[1:])
    return [
        speed_row(pairs, batch * steps, **fields, **check, **ids, peer="open_clip_train amp_bf16", floor=1.5),
        speed_row(against, batch * steps, **fields, **ids, peer="open_clip_train fp32 (one run)", floor=3.3),
        Row(id="P6", what=f"{name}: share of a step spent waiting for data", peer="the step", unit="s", ours=wait,
            theirs=1.0, ratio=wait, spread=(min(waits[1:]), max(waits[1:])), floor=0.01, at_most=True),
    ]  # fmt: skip


def _write_files(products: Products, folder: Path) -> None:
    found = read_jpegs(DATASET / IMAGES, sorted(set(products.image_keys)))
    for row, key in enumerate(products.image_keys):
        (folder / f"{row}.jpg").write_bytes(found[key])


def run(smoke: bool) -> list[Row]:
    logging.disable(logging.INFO)
    if smoke:
        return compare(clips.SMALL, "19M CLIP", 32, 6, 3, True)
    return [
        *compare(clips.SMALL, "19M CLIP", 64, 10, 4, True),
        *compare(clips.B32, "ViT-B/32", 16, 4, 2, True),
    ]
