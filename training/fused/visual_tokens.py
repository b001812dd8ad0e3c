"""Discrete codes of picture patches, the targets of masked image modelling.

The papers take the codes of DALL-E's dVAE (Ramesh et al. 2021, arXiv 2102.12092), whose weights are a file of their
own that no package ships. `PatchCodes` stands in where it is not at hand: k-means over what a patch looks like, colour
and texture, fitted on the catalog's own pictures. That is what captions of a catalog can name ("blue", "striped"), so
predicting a hidden patch's code from the caption means something; it is no substitute for the dVAE's sense of shape.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.images import decode_rgb, in_threads, to_pixels
from data.params import UserError
from training.features import read_jpegs
from training.sampling import Integers, crops
from training.source import Source
from training.task import Batch
from training.weights import read_weights

SAMPLE = 2000  # pictures the k-means sees
ROUNDS = 20  # of Lloyd's algorithm; assignments change little after that
ORIENTATIONS = 4  # of the texture's gradient histogram
SECOND = 1_000_000
DVAE_WIDTH, DVAE_GROUPS, DVAE_BLOCKS = 256, 4, 2  # [DALL-E encoder.py]


class PatchCodes(nn.Module):
    """Codes by nearest centre over colour and texture statistics of a patch.

    Colour: mean and deviation of luminance and of two opponent channels. Texture: mean gradient strength along four
    orientations. Each of the ten statistics is standardised over the catalog; a code is one of `codes` k-means centres.
    """

    shift: Tensor
    scale: Tensor
    centres: Tensor

    def __init__(self, grid: tuple[int, int], codes: int) -> None:
        super().__init__()
        self.grid = grid
        count = 6 + ORIENTATIONS
        self.register_buffer("shift", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("centres", torch.zeros(codes, count))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to codes int64 (B, N), patches row by row."""
        found = (self.statistics(pixels) - self.shift) * self.scale
        return torch.cdist(found, self.centres.expand(len(found), -1, -1)).argmin(-1)

    def statistics(self, pixels: Tensor) -> Tensor:
        """The ten numbers of every patch, float32 (B, N, 10), before standardising."""
        red, green, blue = (pixels.float() / 255).unbind(1)
        light = (red + green + blue) / 3
        colour = torch.stack([light, red - green, (red + green) / 2 - blue], 1)
        across = F.pad(light[:, :, 2:] - light[:, :, :-2], (1, 1))
        down = F.pad(light[:, 2:] - light[:, :-2], (0, 0, 1, 1))
        angle = (torch.atan2(down, across) / torch.pi * ORIENTATIONS).round().long() % ORIENTATIONS
        strength = torch.hypot(across, down)[:, None]
        texture = strength * F.one_hot(angle, ORIENTATIONS).permute(0, 3, 1, 2)
        centre = self._cells(colour)
        spread = (self._cells(colour.square()) - centre.square()).clamp_min(0).sqrt()
        return torch.cat([centre, spread, self._cells(texture)], -1)

    def fit(self, pixels: Tensor, seed: int) -> None:
        """Set centres and standardisation from pictures (B, 3, H, W), by Lloyd's k-means from a random start."""
        found = self.statistics(pixels).flatten(0, 1)
        self.shift.copy_(found.mean(0))
        self.scale.copy_(1 / found.std(0).clamp_min(1e-6))
        points = (found - self.shift) * self.scale
        distinct = torch.unique(points.mul(1e3).round(), dim=0) / 1e3  # plain white patches are all alike
        if len(distinct) < len(self.centres):
            raise UserError(
                f"methods.simla.codes: the pictures have {len(distinct)} different patches only; lower it to that."
            )
        order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))
        self.centres.copy_(lloyd(points, distinct[order[: len(self.centres)]]))

    def _cells(self, maps: Tensor) -> Tensor:
        """Means over the patches: (B, C, H, W) to (B, N, C)."""
        rows, columns = self.grid
        pooled = F.avg_pool2d(maps, (maps.shape[2] // rows, maps.shape[3] // columns))
        return pooled.flatten(2).transpose(1, 2)


def lloyd(points: Tensor, centres: Tensor) -> Tensor:
    """k-means centres (K, F) of points (P, F) after `ROUNDS` rounds; a centre that loses all its points stays."""
    for _ in range(ROUNDS):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(8192)])
        count = torch.bincount(nearest, minlength=len(centres))[:, None]
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count > 0, total / count.clamp_min(1), centres)
    return centres


def catalog_pixels(images: Path, keys: Sequence[str], size: tuple[int, int], seed: int) -> Tensor:
    """`SAMPLE` of the pictures `keys`, drawn by `seed`: uint8 (B, 3, H, W)."""
    distinct = sorted(set(keys))
    chosen = sorted(random.Random(seed).sample(distinct, min(SAMPLE, len(distinct))))
    jpegs = read_jpegs(images, chosen)
    pixels = np.stack(list(in_threads(lambda key: to_pixels(decode_rgb(jpegs[key]), size), chosen)))
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


class DvaeConv(nn.Module):
    """A convolution that keeps the size; its parameters are called `w` and `b`."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(outputs, inputs, side, side))
        self.b = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.w, std=(inputs * side * side) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class DvaeBlock(nn.Module):
    """A residual block of four convolutions, three of them 3 x 3, at a quarter of the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // 4
        self.id_path = DvaeConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        shapes = ((inputs, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, outputs, 1))
        self.res_path = nn.ModuleDict({f"conv_{i}": DvaeConv(*shape) for i, shape in enumerate(shapes, 1)})

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for conv in self.res_path.values():
            branch = conv(branch.relu())
        return self.id_path(x) + branch / (DVAE_GROUPS * DVAE_BLOCKS) ** 2


class Dvae(nn.Module):
    """The encoder of DALL-E's dVAE with its state's names: codes of 8 x 8 pixel cells, one per patch of `grid`."""

    def __init__(self, grid: tuple[int, int], codes: int, width: int = DVAE_WIDTH) -> None:
        super().__init__()
        self.size = (8 * grid[0], 8 * grid[1])
        groups: dict[str, nn.Module] = {"input": DvaeConv(3, width, 7)}
        inputs = width
        for group in range(DVAE_GROUPS):
            outputs = width << group
            sides = [inputs] + [outputs] * (DVAE_BLOCKS - 1)
            groups[f"group_{group + 1}"] = nn.ModuleDict(
                {f"block_{i}": DvaeBlock(side, outputs) for i, side in enumerate(sides, 1)}
            )
            inputs = outputs
        groups["output"] = nn.ModuleDict({"conv": DvaeConv(inputs, codes, 1)})
        self.blocks = nn.ModuleDict(groups)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to codes int64 (B, N): the most likely one of each cell, row by row."""
        x = F.interpolate(pixels.float() / 255, size=self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.logits(0.8 * x + 0.1).argmax(1).flatten(1)  # dVAE's map_pixels [P §2.3, C dataset/__init__.py]

    def logits(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, 8 rows, 8 columns) in [0.1, 0.9] to code logits (B, K, rows, columns)."""
        blocks = self.blocks
        x = blocks["input"](x)
        for group in range(1, DVAE_GROUPS + 1):
            for block in blocks[f"group_{group}"].values():  # type: ignore[operator]
                x = block(x)
            if group < DVAE_GROUPS:
                x = F.max_pool2d(x, 2)
        return blocks["output"]["conv"](x.relu())  # type: ignore[index]


def load_dvae(model: Dvae, path: Path) -> None:
    """Put the encoder's tensors from a torch or safetensors file into `model`. Raises `UserError` saying what is wrong.

    DALL-E's own `encoder.pkl` pickles a whole module, which is not opened here: save its `state_dict()` first.
    """
    if not path.is_file():
        raise UserError(
            f"methods.simla.visual: {path} not found. Save the state_dict of DALL-E's dVAE encoder there, or take "
            "`catalog`."
        )
    state = read_weights(path)
    codes = len(model.blocks["output"]["conv"].w)  # type: ignore[index]
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"methods.simla.visual: {path} is not the state of DALL-E's dVAE encoder with {codes} codes ({words})."
        ) from None


class TwoViews(Source):
    """Batches with a second picture `tokenizer_view` of each product, under a random crop of its own [C §3]."""

    def _make(self, step: int, positions: Integers, places: Integers) -> Batch:
        batch = super()._make(step, positions, places)
        # Crops of an epoch that no training reaches: the same numbers would be the same crop.
        chance = crops(len(self.products.row_ids), self.config.seed, self.plan[step][0] + SECOND)
        return {**batch, "tokenizer_view": self.pictures.take(positions, chance)}
