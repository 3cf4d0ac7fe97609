from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frustum.nn.deform import DeformConv
from frustum.ops.deform_conv import deform_conv2d


def test_key_names_and_shapes_of_mmcv():
    first, second = DeformConv(64, 32, groups=4), DeformConv(64, 32, modulated=True, bias=True)
    assert {name: tuple(value.shape) for name, value in first.state_dict().items()} == {
        "weight": (32, 16, 3, 3),
        "conv_offset.weight": (18, 64, 3, 3),
        "conv_offset.bias": (18,),
    }
    shapes = {name: tuple(value.shape) for name, value in second.state_dict().items()}
    assert shapes["conv_offset.weight"] == (27, 64, 3, 3)
    assert shapes["bias"] == (32,)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 2, 0), (1, 1, 0)])
def test_starts_as_a_convolution(kernel, stride, padding):
    x = torch.randn(2, 8, 9, 12)
    first = DeformConv(8, 6, kernel, stride, padding, groups=2, bias=True)
    torch.testing.assert_close(first(x), F.conv2d(x, first.weight, first.bias, stride, padding, 1, 2))
    second = DeformConv(8, 6, kernel, stride, padding, modulated=True)
    torch.testing.assert_close(second(x), F.conv2d(x, second.weight, None, stride, padding) / 2)  # the sigmoid of zero


def test_offsets_first_then_the_mask():
    x, conv = torch.randn(1, 8, 6, 7), DeformConv(8, 6, modulated=True)
    torch.nn.init.normal_(conv.conv_offset.weight, std=0.1)
    torch.nn.init.normal_(conv.conv_offset.bias)
    found = conv.conv_offset(x)
    torch.testing.assert_close(conv(x), deform_conv2d(x, conv.weight, found[:, :18], found[:, 18:].sigmoid()))


@pytest.mark.parametrize("modulated", [False, True])
def test_everything_learns(modulated):
    conv = DeformConv(8, 6, modulated=modulated, bias=True)
    conv(torch.randn(2, 8, 6, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conv.parameters())


def test_weights_start_as_those_of_a_convolution():
    weight = DeformConv(64, 128, groups=2).weight
    bound = (32 * 9) ** -0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_half_precision():
    conv, x = DeformConv(8, 6, modulated=True, bias=True), torch.randn(1, 8, 6, 7)
    exact = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = conv(x)
    torch.testing.assert_close(mixed.float(), exact, rtol=0.02, atol=0.02)
    assert conv.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
