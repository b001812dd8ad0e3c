"""Coverage-guided fuzzing of drop reading: `python tests/fuzz/atheris_drops.py CORPUS -max_total_time=600`.

The first byte of an input chooses which file of a small good drop the rest of it replaces; libFuzzer then looks for
bytes that reach new branches of the readers. A crash is any exception but `UserError`, or a broken promise of
`landing.attempt`; the input is then left beside as crash-*. `--seeds CORPUS` writes one good input of every kind.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data"), str(ROOT / "tests" / "fuzz")]

with atheris.instrument_imports(include=["data", "tarfile", "PIL"], exclude=["data.negatives"]):
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
MAPPING = (
    b"catalog: shop\ncolumns: {title: productDisplayName}\nfilled: [title]\ncaption: '{base_colour} {article_type}'\n"
)


def small() -> Built:
    """Three products with pictures of 6 x 8 pixels."""
    built = build(3)
    built.images = {name: jpeg(number, (6, 8)) for number, name in enumerate(built.images)}
    return built


class Target:
    """A good drop of every layout, in which one file at a time is replaced."""

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


def seeds(target: Target) -> list[bytes]:
    """Every good file, and pictures of the other formats."""
    found = [bytes([number]) + (good or MAPPING) for number, (_, _, good) in enumerate(target.files)]
    picture = list(PIECES).index("images/00007.jpg")
    return [*found, *(bytes([picture]) + jpeg(1, (6, 8), format=name) for name in ("PNG", "WEBP"))]


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        target = Target(Path(folder))
        if sys.argv[1:2] == ["--seeds"]:
            corpus = Path(sys.argv[2])
            corpus.mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(seeds(target)):
                (corpus / f"seed-{number}").write_bytes(seed)
            return
        atheris.Setup(sys.argv, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
