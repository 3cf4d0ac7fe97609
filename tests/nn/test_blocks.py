"""FPN, BEV networks, U-Net and the occupancy head: shapes, conventions and equality with the plain operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frustum.errors import DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.nn.bev import CustomResNet, FpnLss
from frustum.nn.fpn import CustomFPN
from frustum.nn.occupancy_head import ChannelToHeight, occupancy_predictions, start_at_prior
from frustum.nn.unet import UNet


def test_fpn_merges_by_nearest_upsampling():
    neck = CustomFPN((3, 5), 4)
    fine, coarse = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    lateral = [conv.conv for conv in neck.lateral_convs]
    merged = lateral[0](fine) + lateral[1](coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(neck([fine, coarse]), neck.fpn_convs[0].conv(merged))
    assert set(neck.state_dict()) == {
        f"{n}.conv.{p}" for n in ("lateral_convs.0", "lateral_convs.1", "fpn_convs.0") for p in ("weight", "bias")
    }


def test_fpn_takes_odd_sizes():
    assert CustomFPN((3, 5), 4)([torch.randn(1, 3, 5, 7), torch.randn(1, 5, 3, 4)]).shape == (1, 4, 5, 7)


def test_bev_resnet_halves_three_times_with_a_bare_shortcut():
    net = CustomResNet(4, (8, 16, 32)).eval()
    stages = net(torch.randn(1, 4, 16, 24))
    assert [tuple(s.shape) for s in stages] == [(1, 8, 8, 12), (1, 16, 4, 6), (1, 32, 2, 3)]
    shortcut = net.layers[0][0].downsample
    assert isinstance(shortcut, torch.nn.Conv2d)
    assert shortcut.kernel_size == (3, 3)
    assert shortcut.bias is not None
    assert net.layers[0][1].downsample is None


def test_fpn_lss_upsamples_with_aligned_corners():
    neck = FpnLss(6, 4).eval()
    fine, coarse = torch.randn(1, 2, 8, 8), torch.randn(1, 4, 2, 2)
    joined = torch.cat([fine, F.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=True)], 1)
    inner = F.interpolate(neck.conv(joined), scale_factor=2, mode="bilinear", align_corners=True)
    expected = neck.up2[4](neck.up2[3](neck.up2[2](neck.up2[1](inner))))
    torch.testing.assert_close(neck([fine, coarse]), expected)
    assert expected.shape == (1, 4, 16, 16)


def test_fpn_lss_takes_maps_that_do_not_divide_by_eight():
    """100 cells become 50, 25, 13: corners are laid on corners."""
    neck = FpnLss(2, 4).eval()
    fine, coarse = torch.zeros(1, 1, 50, 46), torch.rand(1, 1, 13, 12)
    seen = []
    neck.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert neck([fine, coarse]).shape == (1, 4, 100, 92)
    stretched = seen[0][0, 1]
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(stretched[corner], coarse[0, 0][corner])
    y, x = 20 * 12 / 49, 30 * 11 / 45  # where row 20 and column 30 lie in the coarse map
    (i, a), (j, b) = ((int(v), v - int(v)) for v in (y, x))
    rows = coarse[0, 0, i : i + 2, j : j + 2]
    expected = torch.tensor([1 - a, a]) @ rows @ torch.tensor([1 - b, b])
    torch.testing.assert_close(stretched[20, 30], expected, rtol=1e-4, atol=1e-5)


def test_channels_become_heights_class_fastest():
    head = ChannelToHeight(3, heights=2, num_classes=5).eval()
    bev = torch.randn(1, 3, 4, 6)  # Y = 4, X = 6
    logits = head(bev)
    assert logits.shape == (1, 6, 4, 2, 5)
    column = head.final_conv(bev)[0, :, 1, 5]  # y = 1, x = 5
    flat = head.predicter(column)
    torch.testing.assert_close(logits[0, 5, 1].flatten(), flat)
    torch.testing.assert_close(logits[0, 5, 1, 1], flat[5:])


def test_final_convolution_is_rectified():
    head = ChannelToHeight(3, 2, 5)
    assert (head.final_conv(torch.randn(1, 3, 4, 4)) >= 0).all()


def test_unet_keeps_the_size_whatever_it_is():
    for size in ((16, 16), (10, 14), (9, 7)):
        assert UNet(6, 4).eval()(torch.randn(2, 6, *size)).shape == (2, 8, *size)


def test_unet_sees_far_and_near():
    """A cell hears from eight cells away through the coarse level, and its own cell through the skip connection."""
    torch.manual_seed(1)
    net = UNet(3, 8).eval()
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    net(x)[0, :, 16, 16].sum().backward()
    reached = x.grad.abs().sum((0, 1)) > 0
    assert reached[16, 16]
    assert reached[16, :9].any()


def test_occupancy_is_the_most_likely_class():
    logits, grid = torch.randn(2, 4, 3, 2, 5), VoxelGrid(lower=(0, 0, 0), upper=(4, 3, 2), cell=(1, 1, 1))
    found = occupancy_predictions(logits, ["a", "b"], grid, ("car", "free"))
    assert [p.token for p in found] == ["a", "b"]
    for prediction, row in zip(found, logits, strict=True):
        assert prediction.occupancy.semantics.dtype == torch.uint8
        assert torch.equal(prediction.occupancy.semantics.long(), row.argmax(-1))
        assert (prediction.occupancy.grid, prediction.occupancy.class_names) == (grid, ("car", "free"))
        assert prediction.occupancy.instances is prediction.boxes is None


def test_a_last_layer_starts_at_the_prior_of_each_height():
    head, weight = torch.nn.Linear(3, 2 * 3), torch.ones(3)
    first = head.weight.detach().clone()
    counts = np.array([[10, 0, 90], [1, 4, 95]])
    start_at_prior(head, weight, counts, power=0.5)
    share = counts.sum(0) / counts.sum()
    np.testing.assert_allclose(weight, (share / share[2]) ** -0.5, rtol=1e-5)
    prior = (counts + 1) * (share / share[2]) ** -0.5
    np.testing.assert_allclose(head.bias.detach().view(2, 3), np.log(prior / prior.sum(1, keepdims=True)), rtol=1e-5)
    torch.testing.assert_close(head.weight, 0.1 * first)
    with pytest.raises(ShapeError, match=r"shape \(Z, K\) = \(2, 3\), got \(3, 2\)"):
        start_at_prior(head, weight, counts.T, power=0.5)
    with pytest.raises(DataError, match="nothing can be learned from them"):
        start_at_prior(head, weight, np.zeros((2, 3)), power=0.5)
