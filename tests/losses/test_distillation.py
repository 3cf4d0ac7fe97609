"""Learning from a teacher with the same queries, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from frustum.losses.distillation import imitation_losses
from frustum.losses.set_prediction import Matches, SetLoss

LAYERS, BATCH, QUERIES, KINDS = 2, 2, 4, 3
MATCHES = Matches(torch.tensor([0, 0, 1]), torch.tensor([[1, 3, 0], [2, 3, 1]]), torch.tensor([[0, 1, 2], [1, 0, 2]]))


def answers() -> tuple[torch.Tensor, ...]:
    sizes = (KINDS, 10, KINDS, 10)
    return tuple(torch.randn(LAYERS, BATCH, QUERIES, size, requires_grad=True) for size in sizes)


def test_it_is_the_sum_of_the_definition():
    given, settings = answers(), SetLoss(class_weight=2.0, box_weight=0.25)
    found = {name: value.detach() for name, value in imitation_losses(*given, MATCHES, settings, "x.").items()}
    logits, codes, their_logits, their_codes = (value.detach().double() for value in given)
    scores = boxes = 0.0
    for index in torch.cartesian_prod(*map(torch.arange, logits.shape)):
        p, q = (float(value[tuple(index)].sigmoid()) for value in (their_logits, logits))
        scores -= abs(p - q) ** 2 * (p * math.log(q) + (1 - p) * math.log(1 - q))
    for layer in range(LAYERS):
        for sample, query in zip(MATCHES.sample.tolist(), MATCHES.query[layer].tolist(), strict=True):
            error = (codes[layer, sample, query] - their_codes[layer, sample, query]).abs()
            boxes += float((error * torch.tensor(settings.code_weights).double()).sum())
    assert found.keys() == {"x.loss_scores", "x.loss_boxes"}
    assert float(found["x.loss_scores"]) == pytest.approx(2.0 * scores / (3 * LAYERS), rel=1e-5)
    assert float(found["x.loss_boxes"]) == pytest.approx(0.25 * boxes / (3 * LAYERS), rel=1e-5)


def test_the_gradient_reaches_the_student_alone_and_ends_at_the_teacher():
    logits, codes, their_logits, their_codes = answers()
    sum(imitation_losses(logits, codes, their_logits, their_codes, MATCHES, SetLoss()).values()).backward()
    assert their_logits.grad is None
    assert their_codes.grad is None
    assert logits.grad.all()
    assert (codes.grad.abs().sum(-1) > 0).sum() == LAYERS * 3, "only of queries that answer for a box"
    same = imitation_losses(logits.detach(), codes.detach(), logits, codes, MATCHES, SetLoss())
    assert all(float(value) == 0 for value in same.values())


def test_samples_without_boxes():
    none = Matches(torch.zeros(0, dtype=torch.int64), *(torch.zeros(LAYERS, 0, dtype=torch.int64),) * 2)
    found = imitation_losses(*answers(), none, SetLoss())
    assert float(found["loss_boxes"]) == 0
    assert float(found["loss_scores"]) > 0
