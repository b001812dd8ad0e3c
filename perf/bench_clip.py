"""P2 and the waiting part of P6: CLIP fine-tuning on real files, against open_clip_train's own epoch function."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip import ClipLoss, SimpleTokenizer
from open_clip.transform import image_transform
from open_clip_train.params import parse_args
from open_clip_train.train import train_one_epoch
from PIL import Image

from perf import clips
from perf.bench import Pairs, Row, paired, speed_row, workspace
from training.features import read_jpegs
from training.methods.clip import Clip
from training.source import IMAGES, Pixels, Products, Source
from training.task import DATASET
from training.trainer import Run

WORKERS = 2


class Ours:
    """The trainer on a source of its own; every call trains `steps` further steps."""

    def __init__(self, config: dict[str, Any], products: Products, batch: int, steps: int, rounds: int) -> None:
        self.encoder = clips.ours(config)
        settings = clips.trainer(batch=batch, crop=1.0, epochs=rounds * steps * batch // len(products.row_ids) + 2)
        pictures = Pixels(self.encoder, DATASET, products.image_keys, crop=1.0)
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


class Files(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Picture files and captions, read and tokenised as open_clip_train's CsvDataset does (it asks for webdataset)."""

    def __init__(self, files: list[Path], captions: list[str], transform: Any) -> None:
        self.files, self.captions, self.transform, self.tokenize = files, captions, transform, SimpleTokenizer()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(Image.open(self.files[index])), self.tokenize([self.captions[index]])[0]


class Data:
    """What open_clip_train's epoch asks of a training set."""

    def __init__(self, dataloader: Loader) -> None:
        self.dataloader = dataloader

    def set_epoch(self, epoch: int) -> None:
        """The order is given."""


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
        self.transform = image_transform(size, is_train=False)  # whole pictures on both sides: losses are compared
        self.args = parse_args(["--device", "cpu", "--skip-scheduler", "--batch-size", str(batch)])
        vars(self.args).update(rank=0, local_rank=0, world_size=1, horovod=False, wandb=False, distill=False)

    def epoch(self, precision: str, rows: list[int]) -> float:
        captions = [self.side.source.products.captions[row][0] or "" for row in rows]
        data = Files([self.folder / f"{row}.jpg" for row in rows], captions, self.transform)
        loader = Loader(torch.utils.data.DataLoader(data, self.batch, num_workers=WORKERS, drop_last=True))
        self.args.precision, self.args.log_every_n_steps = precision, loader.num_batches
        data_info = {"train": Data(loader)}
        train_one_epoch(self.model, data_info, ClipLoss(), 0, self.optimiser, None, None, None, self.args, self)
        return time.perf_counter() - loader.begun

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """What open_clip_train tells TensorBoard."""
        if name == "train/loss":
            self.loss = value


def compare(config: dict[str, Any], name: str, batch: int, steps: int, rounds: int) -> list[Row]:
    """Rows for autocast and for float32, and one for how long our step waits for data."""
    with workspace() as folder:
        products = clips.products(max(1024, batch * steps))
        ours = Ours(config, products, batch, steps, rounds + 1)
        _write_files(products, folder)
        theirs = Theirs(config, ours, folder, batch)
        waits: list[float] = []
        each = batch * steps
        order = ours.order(steps * (rounds + 1))
        orders = iter([order[start : start + each] for start in range(0, len(order), each)])

        def mine() -> float:
            taken = ours()
            waits.append(ours.waited / taken)
            return taken

        pairs = paired(mine, lambda: theirs.epoch("amp_bf16", next(orders)), rounds)
        gap = abs(ours.loss - theirs.loss) / theirs.loss
        short = order[: batch * max(2, steps // 3)]
        plain = theirs.epoch("fp32", short) * each / len(short)
        against = Pairs(pairs.ours, [plain] * len(pairs.ours))
    fields: dict[str, Any] = {"what": f"{name} fine-tuning, real files", "unit": "pairs/s"}
    check = {"check": f"losses differ by {gap:.2%}", "fair": gap < 0.01}
    wait = statistics.median(waits[1:])
    return [
        speed_row(pairs, each, **fields, **check, id="P2", peer="open_clip_train amp_bf16", floor=1.5),
        speed_row(against, each, **fields, id="P2", peer="open_clip_train fp32 (one run)", floor=3.3),
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
        return compare(clips.SMALL, "19M CLIP", 32, 6, 3)
    return [
        *compare(clips.SMALL, "19M CLIP", 64, 10, 4),
        *compare(clips.B32, "ViT-B/32", 16, 4, 2),
    ]
