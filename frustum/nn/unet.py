"""A small 2D U-Net over the bird's-eye-view map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.conv import ConvNorm


class UNet(nn.Module):
    """Three resolutions with `width`, 2 * `width` and 4 * `width` channels; skip connections are concatenated.

    Sides need not divide by four: up-sampling goes to the size of the skip connection.
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.enter = ConvNorm(in_channels, width)
        self.down1 = nn.Sequential(ConvNorm(width, 2 * width, stride=2), ConvNorm(2 * width, 2 * width))
        self.down2 = nn.Sequential(ConvNorm(2 * width, 4 * width, stride=2), ConvNorm(4 * width, 4 * width))
        self.up1 = ConvNorm(6 * width, 2 * width)
        self.up2 = ConvNorm(3 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, Y, X) -> (B, 2 * width, Y, X)."""
        fine = self.enter(x)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        middle = self.up1(_joined(middle, coarse))
        return self.up2(_joined(fine, middle))


def _joined(skip: Tensor, below: Tensor) -> Tensor:
    return torch.cat([skip, F.interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=False)], 1)
