"""A good drop of every layout, of which an input replaces one file: what the coverage-guided fuzzer calls."""

from __future__ import annotations

from pathlib import Path

from landing import attempt
from small_drops import Built, build, jpeg

PIECES = {  # file -> layout of the drop that it is part of, (table, images)
    "catalog.csv": ("csv", "folder"),
    "catalog.jsonl": ("jsonl", "folder"),
    "catalog.parquet": ("parquet", "folder"),
    "images.tar": ("csv", "tar"),
    "images-0.parquet": ("csv", "shards"),
    "images/00007.jpg": ("csv", "folder"),
    "mapping.yaml": ("csv", "folder"),
}
MAPPING = b"""catalog: shop
columns: {title: productDisplayName}
filled: [title]
caption: "{base_colour} {article_type} for {gender}"
"""


def small() -> Built:
    """Three products with pictures of 6 x 8 pixels."""
    built = build(3)
    built.images = {name: jpeg(number, (6, 8)) for number, name in enumerate(built.images)}
    return built


class Target:
    """The first byte of an input chooses the piece, the rest is what the piece then holds."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.files: list[tuple[Path, Path, bytes | None]] = []
        for number, (name, layout) in enumerate(PIECES.items()):
            drop = small().write(folder / str(number), *layout)
            file = drop / name
            self.files.append((drop, file, file.read_bytes() if file.exists() else None))

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        drop, file, good = self.files[data[0] % len(self.files)]
        file.write_bytes(data[1:])
        try:
            attempt(drop, self.out)
        finally:
            if good is None:
                file.unlink()
            else:
                file.write_bytes(good)

    def seeds(self) -> list[bytes]:
        """Every good piece, and pictures of the other formats."""
        found = [bytes([number]) + (good or MAPPING) for number, (_, _, good) in enumerate(self.files)]
        picture = bytes([list(PIECES).index("images/00007.jpg")])
        return [*found, *(picture + jpeg(1, (6, 8), format=name) for name in ("PNG", "WEBP"))]
