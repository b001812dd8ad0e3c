"""Fixture A: two samples in two dimensions, float64, with numbers that can be worked out by hand."""

from __future__ import annotations

import torch

SCALE = torch.tensor(2.0, dtype=torch.float64)
U = [-1.0, 0.0]  # stands for the text of an invalid negative
IMAGE = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
TEXT = torch.tensor([[0.8, 0.6], [0.6, 0.8]], dtype=torch.float64)
NEGATIVE = torch.tensor(
    [[[0.96, 0.28], [0.6, 0.8], [0.28, 0.96], U], [[0.8, 0.6], U, [0.0, 1.0], [-0.6, 0.8]]], dtype=torch.float64
)
VALID = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)

# Fixture B differs from A so that counting by mask, by value and by subset of g give different thresholds.
TEXT_B = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
NEGATIVE_B = torch.tensor(
    [[[0.8, 0.6], [0.6, 0.8], [0.0, 1.0], U], [[1.0, 0.0], U, [0.0, -1.0], [-0.6, 0.8]]], dtype=torch.float64
)
