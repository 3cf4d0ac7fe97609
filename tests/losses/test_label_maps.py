from __future__ import annotations

import math

import pytest
import torch

from frustum.losses.label_maps import label_map_loss
from frustum.types.classes import IGNORE


def test_the_mean_over_pixels_that_count():
    """Two classes at the size of the labels, by hand: -log of the softmax of the right one."""
    logits = torch.tensor([[[[0.0, 1.0], [2.0, -3.0]], [[0.0, 0.0], [0.0, 0.0]]]])  # (1, 2, 2, 2)
    labels = torch.tensor([[[0, 1], [0, IGNORE]]], dtype=torch.uint8)
    expected = [math.log(2), math.log(1 + math.e), math.log(1 + math.exp(-2))]
    assert label_map_loss(logits, labels).item() == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_rare_classes_may_count_for_more():
    """Three pixels of one class, one of another, none of a third; without what is not labelled."""
    logits, labels = torch.randn(1, 3, 1, 5), torch.tensor([[[0, 0, 0, 1, IGNORE]]], dtype=torch.uint8)
    each = -logits.log_softmax(1)[0, :, 0]
    first, second = each[0, :3].sum().item(), each[1, 3].item()
    for balance, weights in ((0.0, (1, 1)), (0.5, (3**-0.5, 1)), (1.0, (1 / 3, 1))):
        expected = (weights[0] * first + weights[1] * second) / (3 * weights[0] + weights[1])
        assert label_map_loss(logits, labels, balance=balance).item() == pytest.approx(expected, rel=1e-5)
    assert label_map_loss(logits, torch.full_like(labels, IGNORE), balance=0.5).item() == 0


def test_how_logits_are_stretched():
    """Two columns over four pixels: 0, 1/4, 3/4, 1 between them, with aligned corners 0, 1/3, 2/3, 1."""
    logits = torch.tensor([0.0, 12.0]).reshape(1, 1, 1, 2)
    logits = torch.cat((logits, torch.zeros_like(logits)), 1)
    labels = torch.zeros(1, 1, 4, dtype=torch.uint8)
    for aligned, shares in ((False, (0, 0.25, 0.75, 1)), (True, (0, 1 / 3, 2 / 3, 1))):
        expected = sum(math.log(1 + math.exp(-12 * share)) for share in shares) / 4
        assert label_map_loss(logits, labels, aligned).item() == pytest.approx(expected, rel=1e-5)


def test_nothing_to_learn_from_is_zero():
    logits = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = label_map_loss(logits, torch.full((2, 8, 8), IGNORE, dtype=torch.uint8))
    loss.backward()
    assert (loss.dtype, loss.item()) == (torch.float32, 0.0)
    assert not logits.grad.any()
