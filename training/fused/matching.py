"""The image-text matching head of a trained fused method: does this text tell of this picture?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.fused.heads.examples import BLOCK, Shelf
from training.fused.heads.stack import stack_of
from training.official.contract import Picture, Vectors
from training.task import Task, Tokens


class Matcher:
    """Scores log p(match) - log p(no match) of pictures below `root` with a text each."""

    def __init__(self, method: Task, root: Path) -> None:
        self.encoder, stack = stack_of(method, 1)
        self.stack = stack.to(self.encoder.logit_scale.device).eval()
        self.itm: Any = method.itm
        self.shelf = Shelf(root, self.encoder.config.image_size)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Vectors:
        """Float32 (N,), greater is better; a picture that neighbours share is seen once."""
        device, made = self.encoder.logit_scale.device, [np.zeros(0, np.float32)]
        for start in range(0, len(texts), BLOCK):
            rows = slice(start, start + BLOCK)
            place = {picture: number for number, picture in enumerate(dict.fromkeys(pictures[rows]))}
            pixels = self.shelf.take([(picture,) for picture in place])[:, 0]
            v = self.encoder.image.trunk.tokens(pixels.to(device))
            of = torch.tensor([place[picture] for picture in pictures[rows]], device=device)
            tokens = Tokens(*self.encoder.tokenize(texts[rows])).to(device)
            logits = self.itm(self.stack(self.encoder.text.trunk, tokens, [v.index_select(0, of)])).float()
            made.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
        return np.concatenate(made)
