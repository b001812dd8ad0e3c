"""Moving averages and rings: numbers by hand, isolation, speed by count and not by clock."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data.params import UserError
from training.fused.momentum import NOBODY, Queue, Teacher


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))


class Owner(nn.Module):
    """A module that has a student and its teacher side by side, as methods do."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.teacher = Teacher({"student": self.student})


def test_moving_average_by_hand() -> None:
    student = Scalar(0.0)
    teacher = Teacher({"s": student})
    student.value.data.fill_(1.0)
    seen = []
    for _ in range(3):
        teacher.update(0.995)
        seen.append(teacher.parts["s"].value.item())
    assert seen == pytest.approx([0.005, 0.009975, 0.014925125], abs=1e-7)


def test_teacher_starts_equal_and_is_no_parameter_of_anything() -> None:
    owner = Owner()
    x = torch.randn(5, 3)
    owner.eval()
    assert torch.equal(owner.teacher.parts["student"](x), owner.student(x))
    assert not list(owner.teacher.parameters())
    assert {name.split(".")[0] for name, _ in owner.named_parameters()} == {"student"}
    assert not any(name.startswith("teacher") for name in owner.state_dict())
    owner.student(x).sum().backward()
    assert all(buffer.grad is None and not buffer.requires_grad for buffer in owner.teacher.buffers())
    with torch.no_grad():
        owner.student[0].weight.add_(1)
    assert not torch.equal(owner.teacher.parts["student"][0].weight, owner.student[0].weight)


def test_teacher_never_drops_anything_out() -> None:
    owner = Owner().train()
    assert owner.student.training
    assert not any(module.training for module in owner.teacher.modules())
    x = torch.ones(50, 3)
    assert torch.equal(owner.teacher.parts["student"](x), owner.teacher.parts["student"](x))


def test_frozen_parameters_are_left_out_and_stay_equal() -> None:
    owner = Owner()
    owner.student[0].requires_grad_(False)
    with torch.no_grad():
        owner.student[2].weight.add_(1.0)
    before = owner.teacher.parts["student"][0].weight.clone()
    owner.teacher.update(0.9)
    assert torch.equal(owner.teacher.parts["student"][0].weight, before)
    moved = owner.student[2].weight - owner.teacher.parts["student"][2].weight
    torch.testing.assert_close(moved, torch.full_like(moved, 0.9))


def test_one_update_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all tensors at once: 4 times a loop over parameters, measured in perf/."""
    calls = []
    original = torch._foreach_lerp_
    monkeypatch.setattr(torch, "_foreach_lerp_", lambda *a: (calls.append(len(a[0])), original(*a))[1])
    Owner().teacher.update(0.5)
    assert calls == [4]


def test_teacher_state_goes_round() -> None:
    first, second = Owner(), Owner()
    second.teacher.load_state({name: tensor.clone() for name, tensor in first.teacher.state().items()})
    for one, other in zip(first.teacher.buffers(), second.teacher.buffers(), strict=True):
        assert torch.equal(one, other)


def queue(size: int = 6) -> Queue:
    return Queue(size, 2, torch.Generator().manual_seed(0))


def test_queue_is_a_ring() -> None:
    ring = queue()
    torch.testing.assert_close(ring.image.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(ring.text.norm(dim=1), torch.ones(6))
    assert ring.ids.tolist() == [NOBODY] * 6
    for k in range(4):
        ring.push(torch.full((2, 2), float(k)), torch.full((2, 2), -float(k)), torch.tensor([2 * k, 2 * k + 1]))
    assert ring.ids.tolist() == [6, 7, 2, 3, 4, 5]
    assert ring.image[:, 0].tolist() == [3, 3, 1, 1, 2, 2]
    assert ring.text[:, 1].tolist() == [-3, -3, -1, -1, -2, -2]
    assert int(ring.pointer) == 2


def test_queue_refuses_a_batch_that_does_not_divide_it() -> None:
    with pytest.raises(UserError, match="a queue of 6 is no multiple of the batch of 4"):
        queue().push(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))


def test_queue_state_goes_round() -> None:
    first, second = queue(), Queue(6, 2, torch.Generator().manual_seed(9))
    first.push(torch.ones(2, 2), torch.ones(2, 2), torch.tensor([4, 5]))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for one, other in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(one, other)
