"""Grad-CAM on cross-attention: by hand, against autograd by parts, and on squares that a trained model finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data.params import UserError
from tests.training import small_simla, sync_tiny
from training.fused.grounding import Grounder, grad_cam
from training.fused.heads.stack import stack_of
from training.fused.reading import read
from training.task import Tokens


def test_map_by_hand() -> None:
    """Two heads, three words of which the last is padding, [CLS] and two patches.

    head 1: A ∘ max(∂s/∂A, 0) of the patches = (.1, 0), (.2, .2)    head 2: (0, .3), (.1, 0)
    mean over heads: (.05, .15), (.15, .1); over the two words: (.1, .125)
    """
    attention = torch.tensor([[
        [[0.5, 0.1, 0.4], [0.4, 0.4, 0.2], [0.0, 0.5, 0.5]],
        [[0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.0, 0.5, 0.5]],
    ]])  # fmt: skip
    gradient = torch.tensor([[
        [[9.0, 1.0, -1.0], [9.0, 0.5, 1.0], [9.0, 9.0, 9.0]],
        [[9.0, -2.0, 1.0], [9.0, 0.5, -3.0], [9.0, 9.0, 9.0]],
    ]])  # fmt: skip
    found = grad_cam(attention, gradient, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.125]]))


def tiny(kind: str):  # type: ignore[no-untyped-def]
    return (small_simla.task() if kind == "simla" else sync_tiny.task()).eval()


def some(method, seed: int = 0) -> tuple[Tensor, Tokens]:  # type: ignore[no-untyped-def]
    pixels = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pixels, Tokens(*method.encoder.tokenize(["w1 w2 w3 w4 w5", "w6", "w7 w8"]))


@pytest.mark.parametrize("kind", ["simla", "syncmask"])
def test_plain_pass_agrees_with_the_pass_of_heads(kind: str) -> None:
    """[CLS] of the pass over all words is that of the stack itself, which computes no other word of its last layer."""
    method = tiny(kind)
    pixels, tokens = some(method)
    encoder, stack = stack_of(method, 1)
    with torch.no_grad():
        v = encoder.image.trunk.tokens(pixels)
        expected = stack(encoder.text.trunk, tokens, [v])
        found = read(stack, encoder.text.trunk, tokens, v)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["simla", "syncmask"])
def test_gradient_is_that_of_the_score_by_each_attention(kind: str) -> None:
    """One attention is moved a little; the score of matching moves by its gradient times as much."""
    grounder = Grounder(tiny(kind))
    pixels, tokens = some(grounder)
    text, small = grounder.encoder.text.trunk, 1e-2

    def score(change: Tensor | None) -> Tensor:
        def hook(module: torch.nn.Module, inputs: object, attention: Tensor) -> Tensor:
            kept.append(attention)
            return attention if change is None else attention + change

        kept: list[Tensor] = []
        handle = grounder.cross.looks.register_forward_hook(hook)
        with torch.no_grad():
            v = grounder.encoder.image.trunk.tokens(pixels)
            found = grounder.itm(read(grounder.stack, text, tokens, v)[:, 0])[:, 1]
        handle.remove()
        shown.append(kept[0])
        return found

    shown: list[Tensor] = []
    score(None)
    attention = shown[0].double()
    gradient = torch.zeros_like(attention)
    for head in range(attention.shape[1]):
        for word in range(attention.shape[2]):
            for place in range(1, attention.shape[3]):
                change = torch.zeros_like(shown[0])
                change[:, head, word, place] = small
                gradient[:, head, word, place] = (score(change) - score(-change)).double() / (2 * small)
    expected = grad_cam(attention, gradient, tokens.mask)
    found = grounder.point(pixels, tokens)
    assert (found >= 0).all()
    assert found.max() > 0
    torch.testing.assert_close(found, expected, atol=2e-2 * float(expected.max()), rtol=2e-2)


@pytest.mark.parametrize("kind", ["simla", "syncmask"])
def test_padding_and_company_change_nothing(kind: str) -> None:
    grounder = Grounder(tiny(kind))
    pixels, tokens = some(grounder)
    together = grounder.point(pixels, tokens)
    for row, length in enumerate(tokens.mask.sum(1).tolist()):
        alone = grounder.point(
            pixels[row : row + 1], Tokens(tokens.ids[row : row + 1, :length], tokens.mask[row : row + 1, :length])
        )
        torch.testing.assert_close(together[row], alone[0], atol=1e-7, rtol=1e-4)


def test_layers_are_counted_as_the_berts() -> None:
    assert Grounder(tiny("simla")).layer == 1  # two thirds of two layers, both of which read
    assert Grounder(tiny("syncmask")).layer == 2  # of four, of which the upper two read
    assert Grounder(tiny("syncmask"), 3).layer == 3
    with pytest.raises(UserError, match="layer 1 reads no picture; choose one of 2 to 3"):
        Grounder(tiny("syncmask"), 1)


def test_the_model_is_left_alone() -> None:
    """No gradient stays behind, and the hook is gone."""
    method = tiny("simla")
    grounder = Grounder(method)
    pixels, tokens = some(method)
    first = grounder.point(pixels, tokens)
    assert torch.equal(first, grounder.point(pixels, tokens))
    assert all(p.grad is None for part in (grounder.encoder, grounder.stack, method) for p in part.parameters())
    assert not grounder.cross.looks._forward_hooks
    shown = grounder.maps(iter(pixels.permute(0, 2, 3, 1).numpy()), ["w1 w2 w3 w4 w5", "w6", "w7 w8"])
    np.testing.assert_array_equal(shown.reshape(3, -1), first.numpy())
