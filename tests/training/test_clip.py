"""The control: its loss is CLIP's and it sees no hard negative."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from training.config import TrainerConfig
from training.encoder import load_encoder
from training.methods.clip import Clip


def test_the_loss_is_the_symmetric_cross_entropy_of_the_batch(workspace: Path) -> None:
    task = Clip(Clip.Config(), load_encoder(Path("store/models/base")))
    config = TrainerConfig(batch=8, epochs=1, frozen=("image.trunk",), precision="fp32", threads=1)
    source = task.source(config, "test")
    (batch,) = source.batches(0)
    source.close()
    assert "negatives" not in batch
    with torch.no_grad():
        loss = task.training_step(batch, 0)["loss"]
        image = task.encoder.project_image(batch["image"])
        text = task.encoder.encode_text(batch["caption"].ids, batch["caption"].mask)
        logits = task.encoder.logit_scale.exp() * image @ text.T
        target = torch.arange(8)
        expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
