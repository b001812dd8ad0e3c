"""P6: pictures per second to a model's door, against a DataLoader over Pillow and open_clip's transform."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transform import image_transform

from perf import clips
from perf.bench import Row, paired, speed_row, workspace
from training.features import read_jpegs
from training.loader import Loader
from training.source import IMAGES, crop_box
from training.task import DATASET

BATCH, WORKERS = 64, 2


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """Picture files through a transform, as open_clip_train reads them."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        return self.transform(Image.open(self.files[index]))


def theirs(files: list[Path], train: bool) -> Callable[[], float]:
    """One epoch of the DataLoader: its seconds from the first batch on, less that batch's share."""
    transform = image_transform(224, is_train=train)
    loader = torch.utils.data.DataLoader(Files(files, transform), batch_size=BATCH, num_workers=WORKERS)

    def epoch() -> float:
        batches = iter(loader)
        next(batches)  # the workers have started
        begun = time.perf_counter()
        count = sum(1 for _ in batches)
        return (time.perf_counter() - begun) * (count + 1) / count

    return epoch


def ours(files: list[bytes], crop: float) -> Callable[[], float]:
    """The same number of batches from our loader."""
    loader = Loader(files, (224, 224), threads=WORKERS)
    chance = np.random.default_rng(0).random((len(files), 4))

    def epoch() -> float:
        begun = time.perf_counter()
        for start in range(0, len(files), BATCH):
            rows = range(start, min(start + BATCH, len(files)))
            loader.take(rows, lambda row, size, rows=rows: crop_box(size, crop, chance[rows[row]]))
        return time.perf_counter() - begun

    return epoch


def run(smoke: bool) -> list[Row]:
    with workspace() as folder:
        products = clips.products(640 if smoke else 1984)
        found = read_jpegs(DATASET / IMAGES, sorted(set(products.image_keys)))
        files = [found[key] for key in products.image_keys]
        paths = [folder / f"{number}.jpg" for number in range(len(files))]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file)
        rows = []
        for what, train, crop in (
            ("whole", False, 1.0),
            ("random crops of", True, 0.9),
        ):
            pairs = paired(ours(files, crop), theirs(paths, train), 3 if smoke else 5)
            rows.append(speed_row(
                pairs, len(files), id="P6", what=f"loader, {what} 224 px pictures, {WORKERS} threads", floor=5.0,
                peer=f"Pillow DataLoader, {WORKERS} workers", unit="pictures/s",
            ))  # fmt: skip
        return rows
