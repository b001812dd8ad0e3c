"""Features of a frozen image trunk, pooled and by patch, computed once per picture and kept.

The cache is content-addressed: a folder per (trunk weights, architecture, preprocessing), and in it one file per pass,
so a new drop costs only its new pictures, and base, every method and every evaluation share the work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from data import stage
from data.images import decode_rgb, in_threads, to_pixels
from data.params import UserError
from training.towers import TimmTrunk

CACHE = Path("runs/cache/features")
BATCH = 64
VERSION = 1  # raise it when the pixels or the forward pass change while the weights do not


def trunk_features(
    trunk: nn.Module, size: tuple[int, int], images: Path, keys: Sequence[str], label: str
) -> np.ndarray:
    """Trunk outputs (N, F) float32 for the pictures `keys`, from the cache where it has them.

    Args:
        trunk: uint8 (B, 3, H, W) to (B, F), in eval mode.
        size: (height, width) the trunk sees.
        images: parquet file with `image_key` and `jpeg`.
        label: named in progress lines.
    """
    folder = CACHE / trunk_hash(trunk, size)
    cached = _read(folder)
    missing = sorted(set(keys) - cached.keys())
    if missing:
        made = _compute(trunk, size, images, missing, label)
        _write(folder, missing, made)
        cached.update(zip(missing, made, strict=True))
    return np.stack([cached[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)


def trunk_tokens(
    trunk: Any, size: tuple[int, int], images: Path, keys: Sequence[str], levels: Sequence[int], label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) float32 and patch features (N, P, W) float16 of `levels`, see `TimmTrunk.with_tokens`.

    Of a transformer, which has no levels, the tokens (N, 1 + P, W), whose first is the feature. One pass makes both,
    and both are kept. Half precision halves 40 kB per picture and costs less than 0.001 of a feature, under the noise
    that bf16 training has anyway [tests/training/test_patch_tokens.py].
    """
    folder = CACHE / trunk_hash(trunk, size)
    own = folder / f"tokens_{'-'.join(map(str, sorted(levels))) or 'last'}"
    cached = _read(own)
    if missing := sorted(set(keys) - cached.keys()):
        pooled, tokens = _compute_both(trunk, size, images, missing, levels, label)
        _write(own, missing, tokens)
        cached.update(zip(missing, tokens, strict=True))
        known = _read(folder).keys()
        if new := [i for i, key in enumerate(missing) if key not in known]:
            _write(folder, [missing[i] for i in new], pooled[new])
    width = trunk.token_width(levels) if isinstance(trunk, TimmTrunk) else trunk.width
    flat = np.stack([cached[key] for key in keys]) if keys else np.zeros((0, width), np.float16)
    return trunk_features(trunk, size, images, keys, label), flat.reshape(len(keys), flat.shape[1] // width, width)


def trunk_hash(trunk: nn.Module, size: tuple[int, int]) -> str:
    """Content address of a trunk: architecture, weights and constants, and the size of what it sees."""
    digest = hashlib.sha256(f"{VERSION} {size[0]}x{size[1]}\n{trunk}".encode())
    for name, tensor in [*trunk.named_parameters(), *trunk.named_buffers()]:
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def read_jpegs(images: Path, keys: Sequence[str]) -> dict[str, bytes]:
    """{image_key: file bytes} of the pictures `keys`. Raises `UserError` naming the first that is absent."""
    table = pq.read_table(images, columns=["image_key", "jpeg"], filters=[("image_key", "in", list(keys))])
    found = dict(zip(table["image_key"].to_pylist(), table["jpeg"].to_pylist(), strict=True))
    for key in keys:
        if key not in found:
            raise UserError(f"{images}: has no picture {key}. Build the dataset again (`dvc repro dataset`).")
    return found


@torch.inference_mode()
def picture_features(trunk: nn.Module, pixels: Iterable[np.ndarray], total: int, label: str) -> np.ndarray:
    """Trunk outputs (N, F) float32 of `total` pictures, uint8 (H, W, 3) at the size that the trunk sees; no cache."""
    batches = _batches(trunk, pixels, total, label)
    return np.concatenate([trunk(batch).float().cpu().numpy()[:count] for batch, count in batches])


def _compute(trunk: nn.Module, size: tuple[int, int], images: Path, keys: list[str], label: str) -> np.ndarray:
    return picture_features(trunk, _pixels(size, images, keys), len(keys), label)


@torch.inference_mode()
def _compute_both(
    trunk: Any, size: tuple[int, int], images: Path, keys: list[str], levels: Sequence[int], label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) float32 and flat patch features (N, P W) float16."""
    features, tokens = [], []
    for pixels, count in _batches(trunk, _pixels(size, images, keys), len(keys), label):
        if isinstance(trunk, TimmTrunk):
            pooled, patches = trunk.with_tokens(pixels, levels)
        else:
            patches = trunk.tokens(pixels)
            pooled = patches[:, 0]
        features.append(pooled.float().cpu().numpy()[:count])
        tokens.append(patches.half().flatten(1).cpu().numpy()[:count])
    return np.concatenate(features), np.concatenate(tokens)


def _pixels(size: tuple[int, int], images: Path, keys: list[str]) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of the pictures `keys` of a parquet file, in order."""
    jpegs = read_jpegs(images, keys)
    return in_threads(lambda key: to_pixels(decode_rgb(jpegs[key]), size), keys)


def _batches(
    trunk: nn.Module, pixels: Iterable[np.ndarray], total: int, label: str
) -> Iterator[tuple[torch.Tensor, int]]:
    """Pixels uint8 (BATCH, 3, H, W) on the trunk's device, and how many of them count."""
    device = next(trunk.parameters()).device
    stage.log(f"[{label}] image trunk: {total} new pictures")
    batches = _stacked((picture.transpose(2, 0, 1) for picture in pixels), BATCH)
    for batch, count in stage.progress(batches, total=-(-total // BATCH), what=f"batches of {BATCH}", label=label):
        yield torch.from_numpy(batch).to(device), count


def _stacked(pixels: Iterator[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of exactly `size` and how many of them count: kernels may round differently for another batch size."""
    batch: list[np.ndarray] = []
    for item in pixels:
        batch.append(item)
        if len(batch) == size:
            yield np.stack(batch), size
            batch = []
    if batch:
        yield np.stack(batch + [batch[-1]] * (size - len(batch))), len(batch)


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        column = table["features"].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        found.update(zip(table["image_key"].to_pylist(), values, strict=True))
    return found


def _write(folder: Path, keys: list[str], features: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    partial = folder / f".{name}.{os.getpid()}.partial"
    pq.write_table(pa.table({"image_key": keys, "features": rows}), partial, compression="none")
    partial.replace(folder / f"{name}.parquet")
