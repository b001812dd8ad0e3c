"""Cross-attention against torch's own, and what makes one stack two encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.fused.fusion import CrossAttention, Fusion, MlmHead, places, put
from training.fused.multimodal import Multimodal
from training.towers import BertLayer, padding_bias

WIDTH, HEADS, SOURCE = 32, 4, 24


def sequences() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 5, WIDTH), torch.randn(3, 7, SOURCE)


def noisy(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def test_cross_attention_equals_torch() -> None:
    x, source = sequences()
    cross = noisy(CrossAttention(WIDTH, HEADS, SOURCE))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=SOURCE, vdim=SOURCE, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(cross.query.weight)
        theirs.k_proj_weight.copy_(cross.key_value.weight[:WIDTH])
        theirs.v_proj_weight.copy_(cross.key_value.weight[WIDTH:])
        theirs.in_proj_bias.copy_(torch.cat([cross.query.bias, cross.key_value.bias]))
        theirs.out_proj.load_state_dict(cross.out.state_dict())
        mixed, weights = theirs(x, source, source, key_padding_mask=mask == 0, average_attn_weights=False)
        bias = padding_bias(mask, x.dtype)
        out, logits = cross(x, source, bias)
        torch.testing.assert_close(out, cross.norm(x + mixed), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close((logits + bias).softmax(-1), weights, atol=1e-6, rtol=1e-5)
    assert logits.shape == (3, HEADS, 5, 7)
    assert logits.abs().max() < 1e3  # the logits carry no bias: padding is the caller's to mask


def test_fused_pass_is_attend_cross_feed_layer_by_layer() -> None:
    x, source = sequences()
    layers = nn.ModuleList(noisy(BertLayer(WIDTH, HEADS, 64, 1e-12)) for _ in range(2))
    fusion = noisy(Fusion(2, WIDTH, HEADS, SOURCE))
    bias = padding_bias(torch.tensor([[1, 1, 1, 1, 0]] * 3), x.dtype)
    with torch.no_grad():
        fused = fusion(layers, x, bias, fusion.project(source))
        by_hand = x
        for layer, cross in zip(layers, fusion.crosses, strict=True):
            by_hand, probabilities = layer.attend(by_hand, bias)
            by_hand, logits = cross(by_hand, source)
            by_hand = layer.feed(by_hand)
    assert torch.equal(fused.tokens, by_hand)
    assert torch.equal(fused.cross, logits)
    assert torch.equal(fused.probabilities, probabilities)
    assert fused.probabilities.shape == (3, HEADS, 5, 5)  # self-attention, not cross-attention


def test_projected_sources_can_be_gathered() -> None:
    """Keys and values made once and taken by row give outputs and gradients of projecting the taken rows."""
    x, source = sequences()
    layers = nn.ModuleList(noisy(BertLayer(WIDTH, HEADS, 64, 1e-12)) for _ in range(2))
    fusion = noisy(Fusion(2, WIDTH, HEADS, SOURCE))
    bias = torch.zeros(1, 1, 1, 5)
    rows = torch.tensor([2, 2, 0])
    results = []
    for gathered in (False, True):
        leaf = source.clone().requires_grad_()
        projected = [p[rows] for p in fusion.project(leaf)] if gathered else fusion.project(leaf[rows])
        out = fusion(layers, x, bias, projected).tokens
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        results.append((out.detach(), gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_language_model_head_is_tied_and_local() -> None:
    torch.manual_seed(1)
    head = noisy(MlmHead(WIDTH, 40))
    words = nn.Embedding(40, WIDTH)
    tokens = torch.randn(6, WIDTH)
    logits = head(tokens, words.weight)
    hidden = head.norm(F.gelu(head.dense(tokens)))
    torch.testing.assert_close(logits, hidden @ words.weight.T + head.bias)
    torch.testing.assert_close(head(tokens[2:4], words.weight), logits[2:4])
    logits.sum().backward()
    assert words.weight.grad is not None


def test_the_last_layer_gives_the_wanted_places_and_no_others() -> None:
    x, source = sequences()
    layers = [noisy(BertLayer(WIDTH, HEADS, 64, 1e-12)) for _ in range(2)]
    blocks = noisy(Multimodal(layers, SOURCE, 1e-12))  # type: ignore[arg-type]
    bias = padding_bias(torch.tensor([[1, 1, 1, 1, 0], [1] * 5, [1, 1, 0, 0, 0]]), x.dtype)
    wanted = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    with torch.no_grad():
        whole, _ = blocks(x, bias, blocks.project(source))
        at = places(wanted)
        some, _ = blocks(x, bias, blocks.project(source), at=at)
    assert some.shape == (3, 3, WIDTH)
    assert at.tolist() == [[0, 2, 3], [0, 4, 1], [0, 1, 2]]
    torch.testing.assert_close(put(some, at, 5), put(whole.gather(1, at[:, :, None].expand(-1, -1, WIDTH)), at, 5))
