"""Adversarial losses and those of portraits: numbers of HeSer.Pytorch, hand-made cases, gradients, bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ConfigError, ShapeError
from frustum.losses.adversarial import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    identity_loss,
    mask_dice_loss,
    perceptual_loss,
    regions_loss,
    vgg_input,
)
from frustum.nn.encoders.vgg import Vgg19Maps
from tests.nn import golden_heser as gold


def test_numbers_of_the_reference():
    """The sheet's figures: losses of seeded scores and codes (golden/heser, loss/*)."""
    fake, real = gold.inp("fake_pred", 2, 1, 8, 8), gold.inp("real_pred", 2, 1, 8, 8)
    assert math.isclose(discriminator_loss(fake, real), 3.52905035, rel_tol=1e-6)
    assert math.isclose(generator_loss(fake), 2.33833408, rel_tol=1e-6)
    found = identity_loss(gold.inp("f1", 2, 512), gold.inp("f2", 2, 512))
    torch.testing.assert_close(found, torch.tensor([1.0119574, 1.0480688]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_perceptual_loss_of_the_reference():
    network = gold.fill(Vgg19Maps())
    first, second = (network(vgg_input(gold.img(name, 1, 3, 64, 64), "rgb")) for name in ("pa", "pb"))
    assert math.isclose(perceptual_loss(first, second), 190.20118713, rel_tol=1e-5)


def test_what_caffe_reads():
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None]
    torch.testing.assert_close(vgg_input(red).flatten(), torch.tensor([-103.939, -116.779, 131.32]))
    torch.testing.assert_close(vgg_input(red, "rgb").flatten(), torch.tensor([151.061, -116.779, -123.68]))


def test_hinge():
    fake, real = torch.tensor([-2.0, 0.5]), torch.tensor([2.0, 0.0])
    assert discriminator_loss(fake, real, "hinge").item() == pytest.approx((0 + 1) / 2 + (0 + 1.5) / 2)
    assert generator_loss(fake, "hinge").item() == pytest.approx(0.75)
    assert discriminator_loss(fake, real).item() == pytest.approx((1 + 1) / 2 + (4 + 0.25) / 2)
    with pytest.raises(ConfigError, match="wgan"):
        generator_loss(fake, "wgan")  # type: ignore[arg-type]


def test_the_best_scores_cost_nothing():
    ones = torch.ones(3, 1, 4, 4)
    for kind, fake in (("lsgan", 0 * ones), ("hinge", -ones)):
        assert discriminator_loss(fake, ones, kind) == 0
    assert generator_loss(ones) == 0


def test_same_faces_and_masks_cost_nothing():
    codes, masks = torch.randn(3, 8), torch.rand(2, 1, 4, 4) > 0.5
    torch.testing.assert_close(identity_loss(codes, 3 * codes), torch.zeros(3))
    torch.testing.assert_close(identity_loss(codes, -codes), torch.full((3,), 2.0))
    for truth in (masks, torch.zeros_like(masks)):
        torch.testing.assert_close(mask_dice_loss(truth.float(), truth), torch.tensor(0.0))


def test_dice_by_hand():
    p, q = torch.tensor([[0.5, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert mask_dice_loss(p, q).item() == pytest.approx(-math.log(2 * 1.5 / (1.25 + 2)), abs=1e-5)


def test_maps_of_layers():
    maps = [torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 5, 2, 2, requires_grad=True)]
    others = [torch.rand_like(m).requires_grad_() for m in maps]
    by_hand = sum(F.l1_loss(a, b) for a, b in zip(maps, others, strict=True))
    torch.testing.assert_close(feature_matching_loss(maps, others), by_hand)
    torch.testing.assert_close(perceptual_loss(maps, others), by_hand)
    torch.testing.assert_close(feature_matching_loss(maps, others, mean_over_layers=True), by_hand / 2)
    feature_matching_loss(maps, others).backward()
    assert all(m.grad.any() for m in maps)
    assert all(m.grad is None for m in others)


def test_a_small_region_counts_as_a_large_one():
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, 0, 0], labels[0, 1:] = 3, 6
    made, true = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    true[:, :, 0, 0], true[:, :, 1:], true[:, :, 0, 1:] = 1.0, 0.5, 9.0  # what is in no region counts for nothing
    assert regions_loss(made, true, labels, (3, 6, 7)).item() == pytest.approx((1.0 + 0.5) / 2)
    assert regions_loss(made, true, labels, (7,)).item() == 0
    with pytest.raises(ShapeError, match="do not lie on images"):
        regions_loss(made, true, labels[:, :2], (3,))


def test_half_precision_is_left():
    fake, real = torch.randn(2, 1, 4, 4).bfloat16(), torch.randn(2, 1, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = discriminator_loss(fake, real), generator_loss(fake), mask_dice_loss(fake.sigmoid(), real > 0)
    assert all(loss.dtype == torch.float32 for loss in found)


def test_bad_shapes():
    with pytest.raises(ShapeError, match="codes"):
        identity_loss(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ShapeError, match="masks"):
        mask_dice_loss(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ShapeError, match="1 and 0"):
        perceptual_loss([torch.ones(1, 1, 2, 2)], [])
