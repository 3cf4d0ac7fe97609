"""The 3D blocks against their definitions, and the gradient that oneDNN gets wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frustum.nn.bev import ResidualStages
from frustum.nn.voxel import BasicBlock3D, Conv3d, ConvNorm3d, CustomResNet3D, LinearPerHeight, LssFpn3D, VoxelHead


def test_stages_keep_halve_and_quarter_the_voxels():
    net = CustomResNet3D(3, (4, 8, 16)).eval()
    stages = net(torch.randn(2, 3, 8, 12, 16))
    assert [tuple(s.shape) for s in stages] == [(2, 4, 8, 12, 16), (2, 8, 4, 6, 8), (2, 16, 2, 3, 4)]
    assert [len(layer) for layer in net.layers] == [1, 2, 4]


def test_only_the_first_block_of_a_stage_maps_its_shortcut():
    net = ResidualStages(4, (4, 8), (2, 2), (1, 2), BasicBlock3D)
    assert [[block.downsample is not None for block in layer] for layer in net.layers] == [[True, False], [True, False]]
    assert net.layers[1][0].downsample.conv.stride == (2, 2, 2)
    assert net.layers[1][0].downsample.conv.kernel_size == (3, 3, 3)
    assert all(conv.conv.bias is None for conv in net.modules() if isinstance(conv, ConvNorm3d))


def test_a_block_adds_before_it_rectifies():
    block = BasicBlock3D(2, 2).eval()
    with torch.no_grad():
        block.conv2.bn.weight.zero_()  # the branch then says 3 everywhere
        block.conv2.bn.bias.fill_(3.0)
    x = torch.randn(1, 2, 4, 4, 4) * 5
    torch.testing.assert_close(block(x), (x + 3).relu())
    assert (x < 0).any(), "the input itself is left alone"


def test_a_block_with_a_mapped_shortcut():
    torch.manual_seed(0)
    block = BasicBlock3D(2, 3, stride=2, mapped=True).eval()
    x = torch.randn(1, 2, 4, 6, 8)
    branch = block.conv2.bn(block.conv2.conv(block.conv1.bn(block.conv1.conv(x)).relu()))
    torch.testing.assert_close(block(x), (branch + block.downsample.bn(block.downsample.conv(x))).relu())


def test_neck_upsamples_with_aligned_corners():
    neck = LssFpn3D(2 + 3 + 4, 5).eval()
    stages = [torch.randn(1, 2, 8, 8, 16), torch.randn(1, 3, 4, 4, 8), torch.randn(1, 4, 2, 2, 4)]
    ups = [F.interpolate(s, scale_factor=k, mode="trilinear", align_corners=True) for s, k in zip(stages[1:], (2, 4), strict=True)]
    expected = neck.conv.bn(neck.conv.conv(torch.cat([stages[0], *ups], 1))).relu()
    torch.testing.assert_close(neck(stages), expected)
    assert expected.shape == (1, 5, 8, 8, 16)


def test_head_answers_in_label_order():
    torch.manual_seed(0)
    head = VoxelHead(3, num_classes=5).eval()
    voxels = torch.randn(1, 3, 2, 4, 6)  # Z = 2, Y = 4, X = 6
    logits = head(voxels)
    assert logits.shape == (1, 6, 4, 2, 5)
    mixed = F.conv3d(voxels, head.final_conv.conv.weight, head.final_conv.conv.bias, padding=1).relu()
    torch.testing.assert_close(logits[0, 5, 1, 1], head.predicter(mixed[0, :, 1, 1, 5]))


def test_linear_per_height_shares_its_weight_and_not_its_bias():
    layer = LinearPerHeight(3, heights=4, num_classes=2)
    assert layer.weight.shape == (2, 3)
    assert layer.bias.shape == (8,)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(8.0))
    x = torch.randn(5, 4, 3)
    expected = torch.stack([x[:, z] @ layer.weight.T + torch.tensor([2.0 * z, 2.0 * z + 1]) for z in range(4)], 1)
    torch.testing.assert_close(layer(x), expected.flatten(1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("heights", [1, 2, 3])
def test_gradients_in_bfloat16_are_those_of_float32(heights, stride):
    """With two heights oneDNN's own weight gradient is wrong in two of its three planes (torch 2.13, bfloat16, CPU)."""
    torch.manual_seed(0)
    conv = Conv3d(8, 8, 3, stride, 1, bias=False)
    x = torch.randn(1, 8, heights, 6, 6)
    found = {}
    for bf16 in (False, True):
        conv.zero_grad()
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = conv(given)
        assert out.shape[2] == -(-heights // stride)
        (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found[bf16] = out.detach().float(), given.grad, conv.weight.grad.clone()
    for half, full in zip(found[True], found[False], strict=True):
        assert ((half - full).norm() / full.norm()) < 0.02


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_the_plane_of_zeros_changes_nothing(kernel, stride):
    conv = Conv3d(4, 4, kernel, stride, kernel // 2)
    x = torch.randn(1, 4, 2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
        plain = F.conv3d(x, conv.weight, conv.bias, stride, kernel // 2)
    torch.testing.assert_close(found, plain, rtol=0.02, atol=0.02)
