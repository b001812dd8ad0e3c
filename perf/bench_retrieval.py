"""P10: recalls at 1, 5 and 10 both ways, against open_clip_train's `get_clip_metrics`, in time and in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from open_clip_train.train import get_clip_metrics

from perf.bench import ROOT, Row, paired, speed_row
from training.ranking import ranks

WIDTH, AT = 512, (1, 5, 10)
SCALE = 100.0
GAP = 5e-4  # of a recall: we count a wrong score within 1e-6 of the right one as a miss, argsort tosses a coin
MEGABYTE = 1 << 20
_ALONE = """
import sys
from pathlib import Path
from perf import bench_retrieval as bench
images, texts = bench.embeddings(int(sys.argv[2]))
bench.ours(images[:64], texts[:64]); bench.theirs(images[:64], texts[:64])
Path("/proc/self/clear_refs").write_text("5")
before = bench.resident("VmRSS")
getattr(bench, sys.argv[1])(images, texts)
print((bench.resident("VmHWM") - before))
"""


def embeddings(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, WIDTH) of pictures, and of texts near theirs: about half of them come first."""
    chance = np.random.default_rng(10)
    images = chance.normal(size=(n, WIDTH)).astype(np.float32)
    texts = images + 5.0 * chance.normal(size=(n, WIDTH)).astype(np.float32)
    return tuple(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))  # type: ignore[return-value]


def ours(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
    places = np.arange(len(images))
    both = ranks(images, texts, np.stack([places, places], axis=1))
    return {f"{way}_R@{k}": float((rank <= k).mean())
            for way, rank in zip(("image_to_text", "text_to_image"), both, strict=True) for k in AT}  # fmt: skip


def theirs(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
    found = get_clip_metrics(torch.from_numpy(images), torch.from_numpy(texts), torch.tensor(SCALE))
    return {name: float(value) for name, value in found.items() if "R@" in name}


def resident(field: str) -> float:
    """VmRSS, or VmHWM, its greatest value, of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / MEGABYTE


def _peak(side: str, n: int) -> float:
    """MB that one side takes beyond what was there before, in a process of its own."""
    command = [sys.executable, "-c", _ALONE, side, str(n)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def run(smoke: bool) -> list[Row]:
    n = 4_000 if smoke else 10_000
    images, texts = embeddings(n)
    one, two = ours(images, texts), theirs(images, texts)
    gap = max(abs(one[name] - two[name]) for name in two)
    fair = one.keys() == two.keys() and gap <= GAP
    pairs = paired(lambda: ours(images, texts), lambda: theirs(images, texts), 3 if smoke else 5)
    mine, others = _peak("ours", n), _peak("theirs", n)
    what = f"recalls of {n:,} x {n:,}"
    check = f"greatest gap of a recall {gap:.0e}, R@1 {one['image_to_text_R@1']:.2f}"
    return [
        speed_row(
            pairs, 2 * n, id="P10", what=what, peer="open_clip get_clip_metrics", unit="queries/s", floor=5.0,
            check=check, fair=fair,
        ),
        Row(
            id="P10", what=f"{what}, peak memory", peer="open_clip get_clip_metrics", unit="MB", ours=mine,
            theirs=others, ratio=mine / others, spread=(mine / others, mine / others), floor=0.2, at_most=True,
            check=check, fair=fair,
        ),
    ]  # fmt: skip
