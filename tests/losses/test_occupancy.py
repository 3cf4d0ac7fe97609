"""Occupancy losses against the reference's values and against slow formulas."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ShapeError
from frustum.losses.occupancy import draw_columns, flashocc_class_weights, masked_cross_entropy, occupancy_losses
from tests.models.golden_weights import crafted_occupancy, golden

FREE = 17


def test_equals_the_reference_losses(shared):
    meta = json.loads((golden(shared, "crafted") / "meta.json").read_text())
    logits, labels, mask = crafted_occupancy()
    weights = flashocc_class_weights()
    assert meta["class_weights"] == pytest.approx(weights.tolist(), rel=1e-6)
    found = {
        "loss_M0_masked": masked_cross_entropy(logits, labels, mask),
        "loss_head2d_nomask": masked_cross_entropy(logits, labels),
        "loss_head2d_mask_classbalance": masked_cross_entropy(logits, labels, mask, weights),
    }
    for name, loss in found.items():
        assert loss.item() == pytest.approx(meta[name]["loss_occ"], rel=1e-5), name


def test_published_values_without_the_golden_files():
    logits, labels, mask = crafted_occupancy()
    assert masked_cross_entropy(logits, labels, mask).item() == pytest.approx(3.346031, abs=1e-5)
    assert masked_cross_entropy(logits, labels, mask, flashocc_class_weights()).item() == pytest.approx(3.345791, abs=1e-5)


def test_ignored_labels_add_nothing_but_count():
    logits, labels = torch.randn(2, 5, 4), torch.randint(0, 4, (2, 5))
    full = masked_cross_entropy(logits, labels)
    one_gone = labels.clone()
    one_gone[0, 0] = 255
    lost = F.cross_entropy(logits[0, 0][None], labels[0, 0][None])
    assert masked_cross_entropy(logits, one_gone).item() == pytest.approx((full - lost / 10).item(), rel=1e-5)


def test_an_empty_mask_gives_zero_with_a_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(3, dtype=torch.uint8), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match="one more dimension"):
        masked_cross_entropy(torch.randn(3, 4, 18), torch.zeros(4, 3))


def _volume(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.where(torch.rand(1, 20, 20, 6, generator=generator) < 0.97, FREE, 4).to(torch.uint8)
    mask = torch.rand(1, 20, 20, 1, generator=generator) < 0.7
    return labels, mask & (torch.rand(1, 20, 20, 6, generator=generator) < 0.6)


def test_drawn_columns_hold_everything_occupied_and_stand_for_all_columns():
    labels, mask = _volume()
    columns, share = draw_columns(labels, mask, FREE, 25)
    flat_labels, flat_mask = labels.flatten(0, 2), mask.flatten(0, 2)
    occupied = ((flat_labels != FREE) & flat_mask).any(1)
    assert set(occupied.nonzero()[:, 0].tolist()) <= set(columns.tolist())
    assert flat_mask[columns].any(1).all()
    assert len(columns) == occupied.sum() + 25
    assert share.sum().item() == pytest.approx(flat_mask.any(1).sum().item(), rel=1e-5)


def test_few_free_columns_are_all_taken_once():
    labels, mask = _volume()
    columns, share = draw_columns(labels, mask, FREE, 10_000)
    assert len(columns.unique()) == len(columns) == mask.any(-1).sum()
    assert (share == 1).all()


def test_losses_equal_plain_formulas():
    labels, mask = (t.flatten(0, 2) for t in _volume(1))
    labels[0] = 255
    logits = torch.randn(*labels.shape, 18)
    weight = torch.rand(18) + 0.5
    cross_entropy, iou, standing = occupancy_losses(logits, labels, mask, weight, FREE, flat=(11, 13))
    keep = mask & (labels != 255)
    assert cross_entropy.item() == pytest.approx(F.cross_entropy(logits[keep], labels[keep].long(), weight).item(), rel=1e-5)
    p, occupied = 1 - logits[keep].softmax(-1)[:, FREE], labels[keep] != FREE
    soft_iou = p[occupied].sum() / (occupied.sum() + p[~occupied].sum())
    assert iou.item() == pytest.approx(1 - soft_iou.item(), rel=1e-5)
    high = [c for c in range(17) if c not in (11, 13)]
    p, stands = logits[keep].softmax(-1)[:, high].sum(-1), torch.isin(labels[keep], torch.tensor(high, dtype=labels.dtype))
    soft_iou = p[stands].sum() / (stands.sum() + p[~stands].sum())
    assert standing.item() == pytest.approx(1 - soft_iou.item(), rel=1e-4)


def test_drawing_keeps_the_expectation():
    labels, mask = _volume(2)
    flat_labels, flat_mask = labels.flatten(0, 2), mask.flatten(0, 2)
    logits, weight = torch.randn(*flat_labels.shape, 18), torch.rand(18) + 0.5
    whole = torch.stack(occupancy_losses(logits, flat_labels, flat_mask, weight, FREE))
    drawn = []
    for _ in range(150):
        columns, share = draw_columns(labels, mask, FREE, 40)
        drawn.append(torch.stack(occupancy_losses(logits[columns], flat_labels[columns], flat_mask[columns], weight, FREE, share)))
    torch.testing.assert_close(torch.stack(drawn).mean(0), whole, rtol=0.015, atol=0.005)


def test_perfect_predictions_cost_nothing():
    labels, mask = (t.flatten(0, 2) for t in _volume(3))
    logits = 50.0 * F.one_hot(labels.long(), 18).float()
    cross_entropy, iou, standing = occupancy_losses(logits, labels, mask, torch.ones(18), FREE, flat=(11,))
    assert cross_entropy.item() == pytest.approx(0, abs=1e-6)
    assert iou.item() == pytest.approx(0, abs=1e-6)
    assert standing.item() == pytest.approx(0, abs=1e-6)
