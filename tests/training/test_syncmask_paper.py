"""The paper's architecture, with random weights: it builds and makes a step."""

from __future__ import annotations

import pytest
import torch

from training import trainer
from training.config import TrainerConfig
from training.fused.pretrained import Towers
from training.methods.syncmask import SyncMask
from training.steps import backward
from training.task import Tokens

ROWS = 2


@pytest.mark.slow
def test_the_papers_architecture_makes_a_step() -> None:
    config = SyncMask.Config(towers=Towers(image="random", text="random", max_tokens=75), queue=64)
    made = SyncMask.build(config, None)
    assert len(made.encoder.image.trunk.blocks) == 12
    assert len(made.encoder.text.trunk.layers) == len(made.fusion.layers) == 6
    assert made.encoder.config.image_size == (256, 256)
    made.rows = ROWS
    tokens = Tokens(*made.encoder.tokenize(["a red dress with long sleeves", "blue leather shoes for men"]))
    rows = torch.arange(ROWS)
    pixels = torch.randint(0, 256, (ROWS, 3, 256, 256), dtype=torch.uint8)
    batch = {"image": pixels, "caption": tokens, "place": rows, "text": rows, "product": rows}
    optimiser = trainer.make_optimiser(made, TrainerConfig(batch=ROWS))
    made.before_step(0, 0.0)
    parts, outputs = backward(made, [batch], 0)
    optimiser.step()
    assert torch.isfinite(parts["loss"])
    assert outputs["patches"].shape == (ROWS, 257, 768)
    assert made._teach(batch, None, 0).maps.looks.shape[2] == 256
