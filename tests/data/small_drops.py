"""Build small drops in every layout, and compare folders."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "data" / "starter"
HEADER = [
    "id", "image", "productDisplayName", "gender", "masterCategory", "subCategory", "articleType", "baseColour",
    "season", "year", "usage",
]  # fmt: skip


def jpeg(seed: int = 0, size: tuple[int, int] = (60, 80), mode: str = "RGB", format: str = "JPEG") -> bytes:
    """An encoded picture of noise, different for every seed."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format)
    return stream.getvalue()


@dataclasses.dataclass
class Built:
    """Rows and pictures of a drop to be written; tests change them before `write`."""

    rows: list[dict[str, str]]
    images: dict[str, bytes]

    def write(self, folder: Path, table: str = "csv", images: str = "folder") -> Path:
        folder.mkdir(parents=True)
        header = list(dict.fromkeys(key for row in self.rows for key in row))
        if table == "csv":
            with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, header, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)
        elif table == "jsonl":
            lines = (json.dumps(row, ensure_ascii=False) for row in self.rows)
            (folder / "catalog.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(self.rows), folder / "catalog.parquet")
        getattr(self, f"_{images}")(folder)
        return folder

    def _folder(self, folder: Path) -> None:
        (folder / "images").mkdir()
        for name, data in self.images.items():
            (folder / "images" / name).write_bytes(data)

    def _tar(self, folder: Path) -> None:
        with tarfile.open(folder / "images.tar", "w") as archive:
            for name, data in self.images.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    def _shards(self, folder: Path) -> None:
        items = list(self.images.items())
        for number, part in enumerate((items[::2], items[1::2])):
            table = {"id": [name.split(".")[0] for name, _ in part], "image": [data for _, data in part]}
            pq.write_table(pa.table(table), folder / f"images-{number}.parquet")


def build(count: int = 12, first: int = 7) -> Built:
    """A drop in which no rule finds anything (but, under ten rows, the rarity of its article type)."""
    rows = [
        {
            "id": f"{i:05d}", "image": f"{i:05d}.jpg", "productDisplayName": f"Puma Men Model {i} Blue T-shirt",
            "gender": "Men", "masterCategory": "Apparel", "subCategory": "Topwear", "articleType": "Tshirts",
            "baseColour": "Blue", "season": "Fall", "year": "2011", "usage": "Casual",
        }
        for i in range(first, first + count)
    ]  # fmt: skip
    return Built(rows, {row["image"]: jpeg(int(row["id"])) for row in rows})


def tree(folder: Path) -> dict[str, Any]:
    """Every path below `folder` with its bytes (None for folders): equal before and after means untouched."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
