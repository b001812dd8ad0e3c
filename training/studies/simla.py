"""Study: SIMLA's ladder of losses, each with 10, 30 and 100 % of the products.

Every arm makes the same number of steps from the same towers: less data is seen more often. The blocks of the vision
transformer below the two that learn are the same in all arms, so test pictures go through them once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data.images import decode_rgb, in_threads, to_pixels
from data.params import canonical_hash
from training import checkpoint, trainer
from training.benchmarks import catalog_retrieval, compositional
from training.config import TrainerConfig
from training.encoder import DualEncoder, embed_texts
from training.features import read_jpegs
from training.fused.pretrained import Towers, own_towers
from training.methods import METHODS
from training.sampling import Integers, epoch_batches
from training.source import IMAGES, Pixels, Products, Source, load_products
from training.studies.study import Study
from training.task import DATASET, Task

SUITES = Path("store/suites")
STEPS = 180
FIXED = 10  # blocks of the twelve that do not learn
TOWERS = Towers(
    image="package", image_layers=12, grid=(6, 4), text="package", text_layers=2, text_pool="mean", embed_dim=256
)
TRAINER = TrainerConfig(
    batch=48, lr=1e-4, head_lr=1e-3, warmup=10, weight_decay=0.02, title_share=0.7, crop=1.0, precision="bf16",
    log_every=60, threads=1, checkpoint_every=100_000,
    frozen=(
        *(f"image.trunk.{part}" for part in ("patch_embed", "cls_token", "pos_embed", "mask_token")),
        *(f"image.trunk.blocks.{i}" for i in range(FIXED)), "text.trunk.words", "text.trunk.positions",
    ),
)  # fmt: skip
METHOD: dict[str, Any] = {
    "towers": TOWERS, "queue": 48 * 20, "momentum": 0.98, "mask_patches": 7, "mask_block": 2, "codes": 256,
}  # fmt: skip
LADDER: dict[str, tuple[str, ...]] = {
    "itc": (), "+itm": ("itm",), "+mlm": ("itm", "mlm"), "+mim": ("itm", "mlm", "mim"),
    "+psl": ("itm", "mlm", "mim", "psl"),
}  # fmt: skip
MEANING = {
    "itc": "global alignment alone", "+itm": "with matching of pairs", "+mlm": "with masked words",
    "+mim": "with masked patches", "+psl": "with keywords: all of SIMLA",
}  # fmt: skip
SHARES = (10, 30, 100)


class Budget(Source):
    """`STEPS` batches, however many epochs these are."""

    def _plan(self) -> list[tuple[int, Integers]]:
        made: list[tuple[int, Integers]] = []
        for epoch in range(STEPS):
            made += [
                (epoch, rows)
                for rows in epoch_batches(self.products.groups, self.config.batch, self.config.seed, epoch)
            ]
            if len(made) >= STEPS:
                break
        return made[:STEPS]

    def progress(self, step: int) -> float:
        """Thirds of the run, so that α rises alike in every arm."""
        return 3 * step / self.steps


def run(arm: str, seed: int) -> pa.Table:
    """Train an arm and score it on the test split."""
    level, share = arm.rsplit(" ", 1)
    config = dataclasses.replace(TRAINER, seed=seed)
    trainer.prepare(config)
    settings = {**METHOD, "levels": LADDER[level]}
    task: Any = METHODS["simla"](METHODS["simla"].Config(**settings), own_towers(TOWERS, "study simla"))
    task.visual.load_state_dict(codes())
    products = part(load_products(DATASET, "train"), int(share.rstrip("%")))
    pictures = Pixels(task.encoder, DATASET, products.image_keys, config.crop)
    source = Budget(products, task.encoder, pictures, config, task.needs)
    name = f"study simla {arm} {seed}"
    binding = canonical_hash({"arm": arm, "trainer": config, "settings": settings})
    trainer.fit(task, source, config, name=name, binding=binding)
    checkpoint.clear(trainer.RUNS / name)
    model: Any = Trained(task)
    return pa.concat_tables([
        catalog_retrieval.score(catalog_retrieval.BENCHMARK.items(SUITES), model),
        compositional.score(compositional.BENCHMARK.items(SUITES), model),
    ])  # fmt: skip


def part(products: Products, share: int) -> Products:
    """`share` % of the products, by family; a larger part holds the smaller ones."""
    kept = [i for i, group in enumerate(products.groups.tolist()) if _percentile(group) < share]
    return Products(
        row_ids=[products.row_ids[i] for i in kept],
        groups=products.groups[kept],
        image_keys=[products.image_keys[i] for i in kept],
        captions=[products.captions[i] for i in kept],
    )


def _percentile(group: int) -> int:
    return int.from_bytes(hashlib.sha256(str(group).encode()).digest()[:4], "big") % 100


@functools.cache
def codes() -> Mapping[str, Tensor]:
    """The visual codes that all arms predict."""
    task: Any = METHODS["simla"].build(METHODS["simla"].Config(**METHOD), None)
    state: Mapping[str, Tensor] = task.visual.state_dict()
    return state


class Trained:
    """An arm under examination, as far as retrieval and compositional suites ask."""

    def __init__(self, task: Task) -> None:
        self.encoder: DualEncoder = task.encoder.cpu().eval()

    @torch.inference_mode()
    def images(self, keys: Sequence[str]) -> np.ndarray:
        trunk = self.encoder.image.trunk
        states, place = lower_states(trunk, self.encoder.config.image_size)
        rows = torch.tensor([place[key] for key in keys])
        return torch.cat([
            self.encoder.project_image(trunk.run(states[some], FIXED)[:, 0]) for some in rows.split(256)
        ]).numpy()  # fmt: skip

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return embed_texts(self.encoder, texts)

    def training_texts(self) -> list[str]:
        return [text for pair in load_products(DATASET, "train").captions for text in pair if text]


_STATES: dict[tuple[int, int], tuple[Tensor, dict[str, int]]] = {}


def lower_states(trunk: Any, size: tuple[int, int]) -> tuple[Tensor, dict[str, int]]:
    """Test pictures after the blocks that no arm changes, (P, N+1, W), and each `image_key`'s row."""
    if size not in _STATES:
        table = pq.read_table(DATASET / "products.parquet", columns=["split", "image_key"])
        keys = sorted({key for split, key in zip(*table.to_pydict().values(), strict=True) if split == "test"})
        jpegs = read_jpegs(DATASET / IMAGES, keys)
        pixels = np.stack(list(in_threads(lambda key: to_pixels(decode_rgb(jpegs[key]), size), keys)))
        blocks = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).split(128)
        made = torch.cat([trunk.lower(trunk.embed(block), FIXED) for block in blocks])
        _STATES[size] = made, {key: i for i, key in enumerate(keys)}
    return _STATES[size]


STUDY = Study(
    name="simla",
    title="SIMLA's ladder of losses against the amount of data",
    claim=(
        "Each level of alignment adds to the one before: matching, masked words, masked patches and keywords each "
        "improve retrieval, and the denser supervision matters most where data are few."
    ),
    arms={
        f"{level} {share}%": f"{MEANING[level]}, {share} % of the products" for share in SHARES for level in LADDER
    },
    reference="itc 100%",
    against={
        f"{level} {share}%": (f"{before} {share}%",)
        for share in SHARES
        for before, level in zip(LADDER, list(LADDER)[1:], strict=False)
    },
    run=run,
    seconds=110,
    headline=(
        ("catalog_retrieval", "t2i_R@10", ""),
        ("catalog_retrieval", "i2t_R@10", ""),
        ("compositional", "accuracy", ""),
    ),
    code=("training/methods/simla.py", "training/fused", "training/vit.py", "training/source.py"),
    note=(
        f"{STEPS} steps of {TRAINER.batch} pairs at most: the paper trains on 4 million pairs for 30 epochs, from "
        "larger towers. Equal steps are not equal cost: a step with all levels costs about four times one of "
        "contrast alone. An arm is compared with the level before it on the same data; `itc 10%` and `itc 30%` with "
        "`itc 100%`. The visual codes are k-means of patches, not DALL-E's dVAE. The paper's own table adds 11 points "
        "of recall by masked words, 1 by patches and 1 by keywords, and calls for no monotone ladder."
    ),
)  # fmt: skip
