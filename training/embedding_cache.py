"""Embeddings kept on disk: each picture and each distinct text is encoded once per model, whichever benchmark asks.

Content-addressed: a folder per model (the hash of its files) and kind of item, in it one file per pass with the hash of
each item and its vector. A new suite costs its new items only, and catalog and official benchmarks share the work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from data.params import canonical_hash
from data.record import hash_file

T = TypeVar("T", bound=Hashable)
Vectors = npt.NDArray[np.float32]
CACHE = Path("runs/cache/embeddings")
VERSION = 1  # raise it when a forward pass changes while the model's files do not
DIGEST = 16  # bytes that name an item
MODEL_FILES = ("*.json", "*.safetensors")


def model_hash(folder: Path, device: str = "cpu") -> str:
    """Names what a model folder computes on a device: its files but the record, 32 hex digits."""
    files = sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.name != "record.json")
    return canonical_hash([VERSION, device, *([path.name, hash_file(path)] for path in files)])[:32]


class EmbeddingCache(Generic[T]):
    """Vectors of items by their content, from memory, from disk, or encoded now: new ones in one call.

    Args:
        model: what `model_hash` gives; `kind` is a folder name ("images", "texts") per way of encoding.
        encode: distinct items to float32 (N, D).
        name: the content of an item in text: the text itself, or the hash of a picture's pixels.
    """

    def __init__(
        self, model: str, kind: str, encode: Callable[[list[T]], Vectors], name: Callable[[T], str] = str
    ) -> None:
        self._folder, self._encode, self._name = CACHE / model / kind, encode, name
        self._known: dict[bytes, Vectors] | None = None

    def __call__(self, asked: Sequence[T]) -> Vectors:
        """(N, D) float32, one row per item asked for, in their order; (0, 0) for none."""
        if self._known is None:
            self._known = dict(_read(self._folder))
        known = self._known
        digests = {item: hashlib.sha256(self._name(item).encode()).digest()[:DIGEST] for item in dict.fromkeys(asked)}
        new = {digest: item for item, digest in digests.items() if digest not in known}
        if new:
            made = np.asarray(self._encode(list(new.values())), np.float32)
            if np.isfinite(made).all():  # what is not gets an error from whoever asked, and no place on disk
                _write(self._folder, list(new), made)
            known.update(zip(new, made, strict=True))
        return np.stack([known[digests[item]] for item in asked]) if asked else np.zeros((0, 0), np.float32)


def _read(folder: Path) -> Iterator[tuple[bytes, Vectors]]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found = safetensors.numpy.load_file(path)
            keys, vectors = found["keys"], found["vectors"]
        except (OSError, KeyError, safetensors.SafetensorError):  # cut off by a full disk: encode them again
            continue
        yield from zip((key.tobytes() for key in keys), vectors, strict=True)


def _write(folder: Path, digests: list[bytes], vectors: Vectors) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
    partial = folder / f".{name}.{os.getpid()}.partial"
    keys = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)
    safetensors.numpy.save_file({"keys": keys, "vectors": np.ascontiguousarray(vectors)}, partial)
    partial.replace(folder / f"{name}.safetensors")
