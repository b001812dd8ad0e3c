"""Learning rates over a run."""

from __future__ import annotations

import math

from training.config import TrainerConfig


def learning_rate(step: int, steps: int, config: TrainerConfig, epoch: int = 0) -> float:
    """The rate of `step` (0 first) of `steps`; `epoch` counts from 0 and matters to the schedule `epochs` alone.

    cosine: linear warm-up, then cosine to `lr_end` over what is left [open_clip_train/scheduler.py].
    constant: linear warm-up, then `lr`.
    epochs: inside epoch 0 a stair of `warmup_unit` steps each, `warmup` steps long, then the peak; from epoch e >= 1 on
        lr_end + (lr - lr_end) (1 + cos(π e / epochs)) / 2  [ALBEF and SIMLA, scheduler/cosine_lr.py].
    """
    if config.schedule == "epochs":
        if epoch:
            return _cosine(epoch / config.epochs, config)
        stairs = max(1, config.warmup // config.warmup_unit)
        climbed = min(step // config.warmup_unit, stairs) if config.warmup else stairs
        return config.lr_start + (config.lr - config.lr_start) * climbed / stairs
    warmup = min(config.warmup, steps)
    if step < warmup:
        return config.lr_start + (config.lr - config.lr_start) * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    return _cosine((step - warmup) / max(1, steps - warmup), config)


def _cosine(share: float, config: TrainerConfig) -> float:
    return config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + math.cos(math.pi * share))
