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
    losses = token_losses(logits, POINTS + offsets, POINTS, KNOWN, [BOX], [torch.tensor([3])], weight)
    return {name: float(value) for name, value in losses.items()}


def test_a_right_answer_costs_nothing():
    logits, offsets = torch.full((1, 4, 11), -30.0), torch.randn(1, 4, 3)
    logits[0, [0, 3], 3] = logits[0, 1, 10] = 30
    offsets[0, 0], offsets[0, 3] = torch.tensor([-0.5, -1.5, 0.0]), torch.tensor([0.0, 2.1, -0.5])
    found = of(logits, offsets)
    assert found["loss_token_cls"] == pytest.approx(0, abs=1e-6)
    assert found["loss_token_centre"] == pytest.approx(0, abs=1e-6)


def test_the_centre_is_a_mean_over_tokens_in_boxes_and_classes_count_as_much_as_no_object():
    logits = torch.zeros(1, 4, 11)
    logits[0, 2] = torch.randn(11)  # without a LiDAR point: does not count
    logits[0, 1, 10] = 1
    found, twice = (of(logits, torch.zeros(1, 4, 3), weight) for weight in (1.0, 2.0))
    smooth = sum(abs(x) - 0.25 if abs(x) >= 0.5 else x * x for x in (-0.5, -1.5, 0, 0, 2.1, -0.5))
    assert found["loss_token_centre"] == pytest.approx(smooth / 2, rel=1e-5)
    entropy = (math.log(11) + math.log(10 + math.e) - 1) / 2
    assert found["loss_token_cls"] == pytest.approx(entropy, rel=1e-5)
    assert twice["loss_token_cls"] == pytest.approx(2 * found["loss_token_cls"])


def test_a_sample_without_boxes_only_says_no():
    losses = token_losses(torch.zeros(1, 4, 11), torch.randn(1, 4, 3), POINTS, KNOWN, [torch.zeros(0, 9)], [torch.zeros(0).long()], 1.0)
    assert losses["loss_token_centre"] == 0
    assert float(losses["loss_token_cls"]) == pytest.approx(math.log(11) / 2, rel=1e-5)
