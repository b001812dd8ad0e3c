"""P5, EMA part alone: the teacher's update against a new tensor per parameter, as the SIMLA and ALBEF code does it."""

from __future__ import annotations

import copy

import torch

from perf import clips
from perf.bench import Row, paired, speed_row
from training.fused.momentum import Teacher

MOMENTUM = 0.995


def run(smoke: bool) -> list[Row]:
    student = clips.ours(clips.SMALL if smoke else clips.B32)
    teacher = Teacher({"encoder": student})
    other = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01)

    def theirs() -> None:
        for slow, fast in zip(other.parameters(), student.parameters(), strict=True):
            slow.data = slow.data * MOMENTUM + fast.data * (1 - MOMENTUM)

    pairs = paired(lambda: teacher.update(MOMENTUM), theirs, 5 if smoke else 9)
    means = teacher.state()
    gap = max(float((means[f"encoder.{name}"] - value).abs().max()) for name, value in other.named_parameters())
    millions = sum(value.numel() for value in other.parameters()) / 1e6
    return [speed_row(
        pairs, 1, id="P5", what=f"teacher update, {millions:.0f}M parameters", peer="new tensor per parameter",
        unit="updates/s", floor=4.0, check=f"greatest difference {gap:.0e}", fair=gap < 1e-5,
    )]  # fmt: skip
