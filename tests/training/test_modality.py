"""CMA-CLIP's network against numbers worked out by hand: attention, gates, losses, sizes, and what gates learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.attributes.modality import (
    Attention,
    KeylessGate,
    Network,
    SequenceAttention,
    TaskHead,
    classification,
    soft_itc,
    take,
)
from training.recall_at_precision import recall_at_precision

BOTH = torch.ones(1, 2, dtype=torch.bool)
TOKENS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # I' and T'


def near(tensor: Tensor, expected: object, atol: float = 1e-6) -> None:
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=tensor.dtype), atol=atol, rtol=0)


def gate(image: list[float], text: list[float], **options: object) -> KeylessGate:
    made = KeylessGate(len(image), **options)  # type: ignore[arg-type]
    for vector, values in zip(made.vectors, (image, text), strict=False):
        vector.data = torch.tensor(values)
    return made


# --- P1, P2: gates ----------------------------------------------------------------------------------------------------


def test_two_tasks_weigh_the_same_tokens_in_their_own_way() -> None:
    first = TaskHead(2, 3, gate([math.log(3), 0.0], [0.0, 0.0]), 0.0)
    second = TaskHead(2, 3, gate([0.0, 0.0], [0.0, math.log(2)]), 0.0)
    network = Network(SequenceAttention(2, 0, 1, 0.0), {"a": first, "b": second})
    _, weights = network.classify(TOKENS, BOTH)
    near(weights, [[[0.75, 0.25], [0.2, 0.8]]])  # the misprinted formula would say 0.366
    near(first.gate(TOKENS, BOTH)[0], [[0.75, 0.5]])
    near(second.gate(TOKENS, BOTH)[0], [[0.2, 1.6]])


def test_gate_algebra() -> None:
    torch.manual_seed(0)
    tokens, present = torch.randn(9, 2, 4), torch.ones(9, 2, dtype=torch.bool)
    made = gate(torch.randn(4).tolist(), torch.randn(4).tolist(), bias=True)
    weights = made(tokens, present)[1]
    near(weights.sum(1), [1.0] * 9)
    made.bias.data += 0.7  # type: ignore[union-attr]
    torch.testing.assert_close(made(tokens, present)[1], weights)
    made.bias.data += torch.tensor([0.0, 1.0])  # type: ignore[union-attr]
    assert (made(tokens, present)[1][:, 1] > weights[:, 1]).all()
    torch.testing.assert_close(KeylessGate(4)(tokens, present)[0], tokens.mean(1))
    one_vector = gate([0.3, -0.2, 0.5, 0.1], [], mode="shared")
    two_equal = gate([0.3, -0.2, 0.5, 0.1], [0.3, -0.2, 0.5, 0.1])
    torch.testing.assert_close(one_vector(tokens, present)[0], two_equal(tokens, present)[0])
    near(KeylessGate(4, "mean")(tokens, present)[1], [[0.5, 0.5]] * 9)
    assert KeylessGate(4, "concat")(tokens, present)[0].shape == (9, 8)


def test_equal_tokens_pass_and_teach_the_gate_nothing() -> None:
    equal = torch.tensor([[[0.3, -1.0], [0.3, -1.0]]], dtype=torch.float64)
    made = gate([0.4, 0.1], [-0.2, 0.3]).double()
    z, _ = made(equal, BOTH)
    near(z, [[0.3, -1.0]])
    z.square().sum().backward()
    for vector in made.vectors:
        near(vector.grad, [0.0, 0.0], atol=1e-15)


@pytest.mark.parametrize(("direction", "expected"), [([1.0, 0.0], 0.1875), ([0.0, 1.0], -0.375)])
def test_gate_gradient(direction: list[float], expected: float) -> None:
    """dz/de_I = λ_I λ_T (I' - T') = 0.1875 (1, -2); e_I moves by the first component of w_I, as I' = (1, 0)."""
    made = gate([math.log(3), 0.0], [0.0, 0.0])
    z, _ = made(TOKENS, BOTH)
    (z * torch.tensor(direction)).sum().backward()
    near(made.vectors[0].grad, [expected, 0.0])


@pytest.mark.parametrize("mode", ["separate", "shared", "mean", "concat"])
def test_a_missing_modality_has_no_weight_and_no_say(mode: str) -> None:
    made = KeylessGate(2, mode)  # type: ignore[arg-type]
    for side, expected in ((0, [[1.0, 0.0]]), (1, [[0.0, 1.0]])):
        present = torch.arange(2)[None] == side
        z, weights = made(TOKENS, present)
        near(weights, expected)
        other = TOKENS.clone()
        other[:, 1 - side] = 17.0
        torch.testing.assert_close(made(other, present)[0], z)


# --- P3, P4: sequence-wise attention ----------------------------------------------------------------------------------


def identity() -> Attention:
    made = Attention(2, 1)
    with torch.no_grad():
        made.query.weight.copy_(torch.eye(2))
        made.key_value.weight.copy_(torch.eye(2).repeat(2, 1))
        made.out.weight.copy_(torch.eye(2))
        for part in (made.query, made.key_value, made.out):
            part.bias.zero_()
    return made


def test_padding_is_not_attended_to() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    expected = [[[0.6698, 0.3302], [0.3302, 0.6698]]]
    near(identity()(tokens, tokens, BOTH), expected, atol=5e-5)
    padded = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    found = identity()(padded, padded, torch.tensor([[True, False, True]]))
    near(found[:, [0, 2]], expected, atol=5e-5)
    without = identity()(padded, padded, torch.ones(1, 3, dtype=torch.bool))
    near(without[:, 0], [[0.5035, 0.2483]], atol=5e-5)


def fused(attention: SequenceAttention, text: Tensor, end: Tensor, image: Tensor) -> Tensor:
    """The global tokens, all others present."""
    there = [torch.ones(part.shape[:2], dtype=torch.bool) for part in (text, image)]
    return attention(text, there[0], end, image, there[1])


@pytest.fixture
def sequences() -> tuple[Tensor, Tensor, Tensor]:
    """Text (3, 6, 8), its global token's place, image (3, 5, 8)."""
    torch.manual_seed(1)
    return torch.randn(3, 6, 8), torch.tensor([2, 5, 0]), torch.randn(3, 5, 8)


def test_the_order_of_tokens_has_no_meaning(sequences: tuple[Tensor, Tensor, Tensor]) -> None:
    text, end, image = sequences
    attention = SequenceAttention(8, 2, 2, 0.1).eval()
    found = fused(attention, text, end, image)
    shuffled = torch.cat([image[:, :1], image[:, 1:].flip(1)], 1)
    torch.testing.assert_close(fused(attention, text, end, shuffled), found, atol=1e-6, rtol=0)
    # [I; T]: the picture takes the first place and the text the second, global tokens where they then are
    start = take(image, torch.zeros(3, 1, dtype=torch.int64))
    there = torch.ones(3, 11, dtype=torch.bool)
    x = attention.layers[0](torch.cat([image, text], 1), there)
    swapped = attention.norm(attention.layers[1](x, there, torch.stack([torch.zeros_like(end), 5 + end], 1)))
    torch.testing.assert_close(swapped, found, atol=1e-6, rtol=0)
    assert start.shape == (3, 1, 8)


def test_type_vectors_tell_the_modalities_apart(sequences: tuple[Tensor, Tensor, Tensor]) -> None:
    attention = SequenceAttention(8, 2, 2, 0.0, type_emb=True)
    for vector in attention.types:
        vector.data.normal_()
    found = fused(attention, *sequences)
    attention.types[0].data, attention.types[1].data = attention.types[1].data, attention.types[0].data
    assert not torch.allclose(fused(attention, *sequences), found, atol=1e-3)
    assert not list(SequenceAttention(8, 2, 2, 0.0).types)


def test_the_last_layer_computes_only_what_is_read(sequences: tuple[Tensor, Tensor, Tensor]) -> None:
    """Outputs and gradients equal those of the whole layer."""
    text, end, image = (part.double() if part.is_floating_point() else part for part in sequences)
    attention = SequenceAttention(8, 2, 2, 0.0).double()
    text.requires_grad_()
    short = fused(attention, text, end, image)
    short.square().sum().backward()
    assert text.grad is not None
    first, weights = text.grad.clone(), [p.grad.clone() for p in attention.parameters() if p.grad is not None]
    text.grad = None
    attention.zero_grad()
    x, there = torch.cat([text, image], 1), torch.ones(3, 11, dtype=torch.bool)
    for layer in attention.layers:
        x = layer(x, there)
    whole = attention.norm(take(x, torch.stack([torch.full_like(end, 6), end], 1)))
    torch.testing.assert_close(short, whole)
    whole.square().sum().backward()
    torch.testing.assert_close(text.grad, first)
    for gradient, parameter in zip(weights, attention.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_global_text_token_is_read_where_it_is(sequences: tuple[Tensor, Tensor, Tensor]) -> None:
    text, end, image = sequences
    found = fused(SequenceAttention(8, 0, 1, 0.0), text, end, image)
    expected = torch.stack([image[:, 0], text[torch.arange(3), end]], 1)
    torch.testing.assert_close(found, F.layer_norm(expected, (8,)))


# --- P5: losses -------------------------------------------------------------------------------------------------------


def test_a_task_without_labels_costs_nothing_and_learns_nothing() -> None:
    torch.manual_seed(2)
    attention = SequenceAttention(4, 1, 1, 0.0)
    network = Network(attention, {name: TaskHead(4, 3, KeylessGate(4), 0.0) for name in ("a", "b")})
    rows = torch.randn(2, 3, 4), torch.tensor([0, 1]), torch.randn(2, 2, 4)
    logits, _ = network.classify(fused(attention, *rows), BOTH.expand(2, 2))
    terms = classification(list(logits.values()), torch.tensor([[0, -1], [2, -1]]), [1.0, 1.0])
    assert terms[1].item() == 0
    sum(terms).backward()  # type: ignore[union-attr]
    for parameter in network.tasks["b"].parameters():
        assert parameter.grad is None or not parameter.grad.any()
    assert any(p.grad is not None and p.grad.any() for p in network.tasks["a"].gate.parameters())
    assert attention.layers[0].up.weight.grad is not None
    assert attention.layers[0].up.weight.grad.any()


def test_classification_counts_each_task_s_own_labels() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    one, none = classification([logits, logits], torch.tensor([[0, -1], [-1, -1]]), [1.0, 1.0])
    assert (one + none).item() == pytest.approx(0.40761, abs=5e-6)  # 0.2038 would be the mean over all rows
    assert classification([logits], torch.tensor([[0], [-1]]), [3.0])[0].item() == pytest.approx(3 * 0.407606, abs=1e-5)
    nothing = sum(classification([logits, logits], torch.full((2, 2), -1), [1.0, 1.0]))
    assert nothing.item() == 0  # type: ignore[union-attr]
    nothing.backward()  # type: ignore[union-attr]
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # type: ignore[arg-type]


def test_contrastive_loss_knows_equal_texts() -> None:
    eye = torch.eye(2)
    plain = soft_itc(eye, eye, torch.tensor(2.0), torch.eye(2, dtype=torch.bool))
    assert plain.item() == pytest.approx(0.126928, abs=1e-6)
    same = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = soft_itc(same, same.detach(), torch.tensor(2.0), torch.ones(2, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()
    near(same.grad, [[0.0, 0.0], [0.0, 0.0]])
    nothing = torch.zeros(0, 2, requires_grad=True)
    assert soft_itc(nothing, nothing, torch.tensor(2.0), torch.ones(0, 0, dtype=torch.bool)).item() == 0


# --- P7: recall at a precision ----------------------------------------------------------------------------------------

HITS = np.array([1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)


def test_recall_looks_past_the_first_threshold_that_fails() -> None:
    falling = np.linspace(0.99, 0.4, 12)
    order = np.random.default_rng(0).permutation(12)
    assert recall_at_precision(HITS[order], falling[order]) == 0.75  # stopping early would give 1/12


def test_equal_confidences_are_accepted_together() -> None:
    tied = np.linspace(0.99, 0.4, 12)
    tied[10] = tied[9]
    assert recall_at_precision(HITS, tied) == pytest.approx(1 / 12)
    tied[0] = tied[1] = 0.999
    assert recall_at_precision(HITS[:3], tied[:3]) == 0
    assert recall_at_precision(HITS[:0], tied[:0]) == 0


def test_a_threshold_per_class() -> None:
    """One class is always right, the other never: together 4 of 8 are too few, apart they give 4 of 8."""
    hits, classes = np.array([1, 0] * 4, dtype=bool), np.array([0, 1] * 4)
    confidence = np.linspace(0.5, 0.9, 8)
    assert recall_at_precision(hits, confidence) == 0
    assert recall_at_precision(hits, confidence, per_class=classes) == 0.5


# --- P8: sizes --------------------------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts() -> None:
    assert count(SequenceAttention(512, 2, 8, 0.1)) - count(SequenceAttention(512, 1, 8, 0.1)) == 3_152_384
    assert count(KeylessGate(512)) == 1_024
    assert count(KeylessGate(512, "shared")) == 512
    sizes = [count(TaskHead(512, classes, KeylessGate(512, "mean"), 0.1)) for classes in (41, 101, 121)]
    assert sizes == [283_689, 314_469, 324_729]


# --- P9: what gates learn ---------------------------------------------------------------------------------------------


def learn(gates: tuple[KeylessGate, KeylessGate], steps: int) -> tuple[list[float], list[float]]:
    """Accuracy and mean λ_I of task A, whose class only the image shows, and of B, whose class only the text shows."""
    torch.manual_seed(0)
    prototypes = 3 * F.normalize(torch.randn(2, 4, 16), dim=-1)
    heads = nn.ModuleList(nn.Linear(16, 4) for _ in range(2))
    parameters = {id(p): p for module in (*gates, heads) for p in module.parameters()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2, fused=True)
    present = torch.ones(2048, 2, dtype=torch.bool)

    def sample(rows: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 4, (rows, 2))
        means = torch.stack([prototypes[0, labels[:, 0]], prototypes[1, labels[:, 1]]], 1)
        return means + 0.7 * torch.randn(rows, 2, 16), labels

    for _ in range(steps):
        tokens, labels = sample(256)
        found = [head(made(tokens, present[:256])[0]) for made, head in zip(gates, heads, strict=True)]
        loss = torch.stack(classification(found, labels, [1.0, 1.0])).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        tokens, labels = sample(2048)
        results = [made(tokens, present) for made in gates]
        accuracy = [
            (head(z).argmax(1) == labels[:, k]).float().mean().item()
            for k, ((z, _), head) in enumerate(zip(results, heads, strict=True))
        ]
    return accuracy, [weights[:, 0].mean().item() for _, weights in results]


def test_gates_learn_which_modality_knows() -> None:
    accuracy, shares = learn((KeylessGate(16), KeylessGate(16)), 1500)
    assert min(accuracy) > 0.97
    assert shares[0] > 0.85
    assert shares[1] < 0.15
    shared = KeylessGate(16)
    worse, same = learn((shared, shared), 500)
    assert same[0] == same[1] == pytest.approx(0.5, abs=0.1)
    assert sum(worse) < sum(accuracy) - 0.01
