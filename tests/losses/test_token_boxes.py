"""The loss of tokens: which tokens lie in which box, and what they should say."""

from __future__ import annotations

import math

import pytest
import torch

from frustum.losses.token_boxes import token_losses

BOX = torch.tensor([[10.0, 0, 1, 4, 2, 2, math.pi / 2, 0, 0]])  # turned: 2 m along x, 4 m along y
POINTS = torch.tensor([[[10.5, 1.5, 1.0], [12.0, 0.0, 1.0], [10.0, 0.0, 1.0], [10.0, -2.1, 1.5]]])
KNOWN = torch.tensor([[True, True, False, True]])  # the second lies outside, the third has no LiDAR point


def of(logits: torch.Tensor, offsets: torch.Tensor, weight: float = 1.0) -> dict[str, float]:
    losses = token_losses(logits, offsets, POINTS, KNOWN, [BOX], [torch.tensor([3])], weight)
    return {name: float(value) for name, value in losses.items()}


def test_a_right_answer_costs_nothing():
    logits, offsets = torch.full((1, 4, 10), -30.0), torch.randn(1, 4, 3)
    logits[0, [0, 3], 3] = 30
    offsets[0, 0], offsets[0, 3] = torch.tensor([-0.5, -1.5, 0.0]), torch.tensor([0.0, 2.1, -0.5])
    found = of(logits, offsets)
    assert found["loss_token_cls"] == pytest.approx(0, abs=1e-6)
    assert found["loss_token_centre"] == pytest.approx(0, abs=1e-6)


def test_losses_are_sums_over_tokens_in_boxes_divided_by_their_number():
    found, twice = (of(torch.zeros(1, 4, 10), torch.zeros(1, 4, 3), weight) for weight in (1.0, 2.0))
    smooth = sum(abs(x) - 0.25 if abs(x) >= 0.5 else x * x for x in (-0.5, -1.5, 0, 0, 2.1, -0.5))
    assert found["loss_token_centre"] == pytest.approx(smooth / 2, rel=1e-5)
    focal = 0.25 * math.log(2) * (2 * 0.25 + 28 * 0.75)  # three known tokens of ten classes, two of them positive
    assert found["loss_token_cls"] == pytest.approx(focal / 2, rel=1e-5)
    assert twice["loss_token_cls"] == pytest.approx(2 * found["loss_token_cls"])


def test_a_sample_without_boxes_only_says_no():
    losses = token_losses(torch.zeros(1, 4, 10), torch.randn(1, 4, 3), POINTS, KNOWN, [torch.zeros(0, 9)], [torch.zeros(0).long()], 1.0)
    assert losses["loss_token_centre"] == 0
    assert float(losses["loss_token_cls"]) == pytest.approx(30 * 0.75 * 0.25 * math.log(2), rel=1e-5)
