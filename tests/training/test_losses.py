"""The contrastive loss, with and without hard negatives, against numbers worked out by hand (fixture A)."""

from __future__ import annotations

import pytest
import torch

from tests.training.fixture_a import IMAGE, NEGATIVE, SCALE, TEXT, VALID
from training.losses import itc


def test_plain_clip_loss() -> None:
    assert itc(IMAGE, TEXT, SCALE).item() == pytest.approx(0.513015, abs=1e-6)


def test_hard_negatives_widen_only_the_image_to_text_half() -> None:
    with_negatives = itc(IMAGE, TEXT, SCALE, NEGATIVE).item()
    assert with_negatives == pytest.approx(1.196400, abs=1e-6)
    plain = itc(IMAGE, TEXT, SCALE).item()
    i2t = 2 * with_negatives - plain  # fixture A is symmetric: both plain halves are 0.513015
    assert i2t == pytest.approx((1.684281 + 2.075288) / 2, abs=1e-6)


def test_masking_invalid_negatives_is_another_loss() -> None:
    assert itc(IMAGE, TEXT, SCALE, NEGATIVE, VALID).item() == pytest.approx(1.180848, abs=1e-6)


def test_masked_columns_get_no_gradient() -> None:
    negative = NEGATIVE.clone().requires_grad_()
    itc(IMAGE, TEXT, SCALE, negative, VALID).backward()
    assert negative.grad is not None
    assert torch.all(negative.grad[~VALID] == 0)
    assert torch.all(negative.grad[VALID].abs().sum(1) > 0)


def test_negclip_number_from_the_same_pieces() -> None:
    """NegCLIP's ½[CE(S(images, texts), arange) + CE(S(texts[:B], images), arange)] with one negative per sample."""
    assert itc(IMAGE, TEXT, SCALE, NEGATIVE[:, :1]).item() == pytest.approx(0.853795, abs=1e-6)
