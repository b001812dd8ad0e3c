"""SIMLA learns from both modalities: a slow test on coloured cells, whose captions name two colours that are there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.training import small_simla as small
from training.fused.alignment import embedding
from training.methods.simla import Simla
from training.task import Tokens

COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "yellow": (230, 220, 40),
    "pink": (240, 130, 190), "grey": (128, 128, 128), "black": (10, 10, 10), "white": (245, 245, 245),
}  # fmt: skip
PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)


class Colours(torch.nn.Module):
    """Codes: the colour of the patch."""

    def forward(self, pixels: Tensor) -> Tensor:
        shown = pixels[:, :, ::8, ::8].flatten(2).transpose(1, 2).float()
        return torch.cdist(shown, PALETTE.float()[None]).argmin(-1)


def painted(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of 16 cells in two colours each, and these two colours (rows, 2)."""
    chance = torch.Generator().manual_seed(seed)
    pair = torch.rand(rows, len(PALETTE), generator=chance).argsort(1)[:, :2]
    cells = pair.gather(1, torch.randint(0, 2, (rows, 16), generator=chance))
    pixels = PALETTE[cells].view(rows, 4, 4, 3).permute(0, 3, 1, 2)
    return pixels.repeat_interleave(8, 2).repeat_interleave(8, 3).contiguous(), pair


def named(pair: Tensor) -> Tokens:
    """Captions "red blue"."""
    ids = torch.cat([torch.full((len(pair), 1), 2), pair + len(small.SPECIALS), torch.full((len(pair), 1), 3)], 1)
    return Tokens(ids, torch.ones_like(ids))


def guess(task: Simla, v_masked: Tensor, caption: Tokens, hidden: Tensor) -> Tensor:
    """The student's likeliest code of each hidden patch."""
    words = task.encoder.text.trunk.look_up(caption.ids)
    return task.guess_patches(task.student, v_masked, words, caption.mask, hidden).argmax(-1)


@pytest.mark.slow
def test_captions_help_to_see_and_pictures_to_name() -> None:
    """Hidden cells are guessed better with the true caption than with another's, and concepts are present colours."""
    gains, hits = [], []
    for seed in range(3):
        task = small.task([*small.SPECIALS, *COLOURS], codes=8, mask_patches=13, queue=64, mask_words=0.3)
        task.visual, task.rows, task.seed = Colours(), 32, seed
        optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-3)
        for number in range(200):
            pixels, pair = painted(32, 10_000 * seed + number)
            task.before_step(number, number / 100)
            batch = {"image": pixels, "caption": named(pair), "place": torch.arange(32)}
            task.training_step(batch, number)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            task.after_step()
        pixels, pair = painted(200, 999 + seed)
        hidden = torch.rand(200, 16, generator=torch.Generator().manual_seed(seed)) < 0.8
        with torch.no_grad():
            (v, v_masked), _ = task._pictures(pixels, hidden)
            right = [
                guess(task, v_masked, named(told), hidden) == Colours()(pixels)[hidden]
                for told in (pair, pair.roll(1, 0))
            ]
            top = task.concept(embedding(task.encoder.image, v[:, 0])).topk(2).indices - len(small.SPECIALS)
        gains.append((right[0].float() - right[1].float()).mean().item())
        hits.append((top[:, :, None] == pair[:, None]).any(-1).any(-1).float().mean().item())
    chance = 1 - (6 / 8) * (5 / 7)  # that one of two drawn colours is one of the two present: 0.46
    assert min(gains) > 0.1, gains
    assert min(hits) > chance + 0.2, hits
