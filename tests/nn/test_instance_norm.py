"""Instance normalisation: torch's values, and a gradient that does not depend on how a map lies in memory."""

from __future__ import annotations

import pytest
import torch

from frustum.nn.instance_norm import InstanceNorm


def test_values_are_torchs():
    x = 5 + 3 * torch.randn(3, 4, 6, 7)
    torch.testing.assert_close(InstanceNorm()(x), torch.nn.InstanceNorm2d(4)(x), atol=1e-5, rtol=1e-5)
    assert InstanceNorm()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_are_right_in_every_layout(batch):
    """By the formula in float64: g / s - mean(g) / s - y mean(g y) / s."""
    x, g = torch.randn(batch, 16, 12, 20), torch.randn(batch, 16, 12, 20)
    wide, up = x.double(), g.double()
    spread = (wide.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    y = (wide - wide.mean((2, 3), keepdim=True)) / spread
    expected = ((up - up.mean((2, 3), keepdim=True) - y * (up * y).mean((2, 3), keepdim=True)) / spread).float()
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=layout).requires_grad_()
        InstanceNorm()(leaf).backward(g.clone(memory_format=layout))
        torch.testing.assert_close(leaf.grad, expected, atol=1e-4, rtol=1e-4)
