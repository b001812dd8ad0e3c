"""The start of a fine-tuning: a trained model's towers and stack under a fresh classifier."""

from __future__ import annotations

from pathlib import Path

import torch

from training.fused.fusion import initialise
from training.fused.heads.assignment import Assignment
from training.fused.heads.head import Head
from training.fused.heads.recipes import ASSIGNMENT, Recipe, Tuning
from training.fused.heads.stack import regrid, stack_of
from training.methods import load_task


def begin(model: Path, task: str, recipe: Recipe, tuning: Tuning, classes: tuple[str, ...], earlier: Path) -> Head:
    """The head at its start.

    Args:
        model: a trained model's folder; its method is read from it.
        earlier: folder of the head that `tuning.after` names.

    Raises `UserError` if the model is no fused one.
    """
    method = load_task(model)
    if tuning.after is None:
        encoder, stack = stack_of(method, recipe.pictures)
    else:
        before = Head.load(earlier)
        encoder, stack = before.encoder, before.stack
    regrid(encoder, tuning.grid or encoder.image.trunk.grid, tuning.max_tokens)
    config = Head.Config(
        task=task, method=type(method).__module__.rpartition(".")[2], classes=classes, shape=stack.shape,
        classifier=recipe.classifier, alpha=tuning.alpha, ramp=tuning.ramp,
    )  # fmt: skip
    torch.manual_seed(tuning.trainer.seed)
    head = (Assignment if task == ASSIGNMENT else Head)(config, encoder, stack)
    head.classifier.apply(initialise)
    head.begin()
    return head


def frozen(head: Head, tuning: Tuning) -> tuple[str, ...]:
    """Prefixes of parameters that keep their values: `trainer.frozen`, and what `image_blocks` leaves out."""
    if tuning.image_blocks is None:
        return tuning.trainer.frozen
    trunk = "image.trunk"
    count = len(head.encoder.image.trunk.blocks) - tuning.image_blocks
    below = [f"{trunk}.{name}" for name in ("patch_embed", "cls_token", "pos_embed")]
    return (*tuning.trainer.frozen, *below, *(f"{trunk}.blocks.{i}" for i in range(max(count, 0))))
