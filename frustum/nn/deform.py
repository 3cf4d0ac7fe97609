"""A deformable convolution that predicts its own offsets, with mmcv's key names (DCNv1: Dai et al., 2017; DCNv2: Zhu et al., 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from frustum.ops.deform_conv import deform_conv2d


class DeformConv(nn.Module):
    """A convolution at places that a second one, `conv_offset`, reads from the same features. It starts as a plain convolution's twin.

    Args:
        in_channels, out_channels: of the features.
        kernel, stride, padding: of rows and columns alike.
        groups: of channels that are convolved by themselves; all share the offsets.
        modulated: DCNv2, whose taps are also weighted, by a sigmoid: 1/2 each at the start.
        bias: of the convolution; `conv_offset` always has one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int = 1, groups: int = 1,
        modulated: bool = False, bias: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.stride, self.padding, self.groups, self.modulated = stride, padding, groups, modulated
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel))
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)  # as nn.Conv2d
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(in_channels, (3 if modulated else 2) * kernel**2, kernel, stride, padding)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, H, W) -> (M, out_channels, h, w)."""
        offset, mask = self.conv_offset(x), None
        if self.modulated:
            taps = self.weight.shape[2] * self.weight.shape[3]
            offset, mask = offset[:, : 2 * taps], offset[:, 2 * taps :].sigmoid()
        return deform_conv2d(x, self.weight, offset, mask, self.bias, stride=self.stride, padding=self.padding, groups=self.groups)
