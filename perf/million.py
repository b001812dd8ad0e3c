"""Land a synthetic drop of a million rows and say the rate and the peak of memory.

    python -m perf.million [--rows 1000000] [--layout shards|webdataset] [--folder BIG_DISK]

The drop is made in a folder of its own that is deleted afterwards: every row has its own title and its own picture
(60 x 80, about a kilobyte), one row in a hundred breaks a critical rule, and the pictures lie in parquet shards, or
with their rows in WebDataset tars. It lands by `python -m data.land` in a fresh repository, as any drop does.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data import dvc
from data.vocabulary import ARTICLE_TYPES, COLOURS, GENDERS, MASTER_CATEGORIES, SEASONS, SUB_CATEGORIES, USAGES
from perf.bench import ROOT

SHARD = 100_000  # rows of one shard or tar
LIMIT = 4.0  # GiB


def picture(number: int) -> bytes:
    """A JPEG in which 24 fields show the bits of `number`, on a background that varies with it."""
    bits = np.array([number >> bit & 1 for bit in range(24)], np.uint8).reshape(6, 4)
    pixels = np.zeros((80, 60, 3), np.uint8)
    pixels[...] = (number * 7 % 200, number * 13 % 200, number * 29 % 200)
    pixels[4:76, 4:52] += np.kron(bits, np.full((12, 12), 55, np.uint8))[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def row(number: int, chance: random.Random) -> dict[str, str]:
    colour, article = chance.choice(COLOURS), chance.choice(ARTICLE_TYPES)
    return {
        "id": str(number), "productDisplayName": f"Brand{number % 997} Model {number} {colour} {article}",
        "gender": "" if number % 100 == 0 else chance.choice(GENDERS),
        "masterCategory": chance.choice(MASTER_CATEGORIES), "subCategory": chance.choice(SUB_CATEGORIES),
        "articleType": article, "baseColour": colour,
        "season": chance.choice(SEASONS), "year": str(2010 + number % 9), "usage": chance.choice(USAGES),
    }  # fmt: skip


def write_shards(folder: Path, rows: Iterator[dict[str, str]], count: int) -> None:
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as stream:
        writer: csv.DictWriter[str] | None = None
        for product in rows:
            writer = writer or csv.DictWriter(stream, list(product))
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(product)
    for start in range(0, count, SHARD):
        numbers = range(start, min(start + SHARD, count))
        table = pa.table({"id": list(map(str, numbers)), "image": pa.array(map(picture, numbers), pa.binary())})
        pq.write_table(table, folder / f"images-{start // SHARD:03d}.parquet", compression="none", use_dictionary=False)


def write_webdataset(folder: Path, rows: Iterator[dict[str, str]], count: int) -> None:
    for start in range(0, count, SHARD):
        with tarfile.open(folder / f"products-{start // SHARD:03d}.tar", "w") as archive:
            for number in range(start, min(start + SHARD, count)):
                for suffix, data in ((".jpg", picture(number)), (".json", json.dumps(next(rows)).encode())):
                    member = tarfile.TarInfo(f"{number:09d}{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


WRITERS = {"shards": write_shards, "webdataset": write_webdataset}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--layout", choices=WRITERS, default="shards")
    parser.add_argument("--folder", type=Path, help="where the drop and the repository are made (default: TMPDIR)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        drop, repository = Path(made) / "million", Path(made) / "repository"
        drop.mkdir()
        chance = random.Random(0)
        WRITERS[args.layout](drop, (row(number, chance) for number in range(args.rows)), args.rows)
        size = sum(file.stat().st_size for file in drop.iterdir())
        subprocess.run(["git", "init", "-q", repository], check=True)
        dvc.call("init", "-q", cwd=repository)
        for name in ("params.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, repository)
        begun = time.monotonic()
        landing = subprocess.run(
            [sys.executable, "-m", "data.land", str(drop)], cwd=repository, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": made},
        )  # fmt: skip
        seconds = time.monotonic() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{args.rows:,} rows ({args.layout}, {size / 1e9:.2f} GB) landed in {seconds:.0f} s, "
        f"{args.rows / seconds:,.0f} rows/s, with a peak of {peak:.2f} GiB (limit {LIMIT:g}); "
        f"load {os.getloadavg()[0]:.1f}"
    )
    return landing.returncode or int(peak > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
