"""Discriminators: networks that tell a true image from a generated one, with spectral norms.

Shape letters: B batch, C channels, H W image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.spectral import SpectralConv2d, SpectralLinear


class _Named(nn.Module):
    """A spectral convolution under the name that it has in HeSer.Pytorch's files."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        super().__init__()
        self.sn_conv = SpectralConv2d(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.sn_conv(x)


class PatchDiscriminator(nn.Module):
    """How true each part of an image looks: pairs of 3x3 convolutions, the first of each with stride 2 (HeSer.Pytorch's).

    Args:
        in_channels: 3 for images, 5 for images with two masks.
        widths: channels of the pairs.
    """

    def __init__(self, in_channels: int = 3, widths: tuple[int, ...] = (32, 64, 128, 256)):
        super().__init__()
        layers: list[nn.Module] = []
        for inside, width in pairwise((in_channels, *widths)):
            layers += [_Named(inside, width, 3, 2), _Named(width, width, 3)]
        self.model = nn.ModuleList([*layers, _Named(widths[-1], 1, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> scores (B, 1, H / 16, W / 16), with other widths H / 2^len(widths); sizes rounded up."""
        *layers, head = self.model
        for layer in layers:
            x = F.leaky_relu(layer(x), 0.2)
        return head(x)


class Judged(NamedTuple):
    """What `ResidualDiscriminator` says.

    Attributes:
        scores: (B,).
        features: maps (B, C, h, w) after each block, which `feature_matching_loss` compares.
    """

    scores: Tensor
    features: list[Tensor]


class _Residual(nn.Module):
    """ReLU, 3x3 convolution, twice, beside a shortcut, and halved where `is_down`. The first ReLU is left to whoever calls it."""

    def __init__(self, in_channels: int, channels: int, is_down: bool):
        super().__init__()
        self.is_down = is_down
        self.block = nn.ModuleDict({"2": SpectralConv2d(in_channels, channels, 3), "5": SpectralConv2d(channels, channels, 3)})
        self.skip = nn.ModuleDict({"0": SpectralConv2d(in_channels, channels, 1)}) if is_down else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.block["5"](self.block["2"](x).relu())
        if self.skip is None:
            return x + y
        return F.avg_pool2d(self.skip["0"](x), 2) + F.avg_pool2d(y, 2)


class ResidualDiscriminator(nn.Module):
    """One score for an image, and maps of it (LPD's and GHOST 2.0's discriminator, with their key names).

    Shortcuts start from relu(x), and all features but the last are relu(x), as there, where the first ReLU of a block works in place.

    Args:
        in_channels: of the image.
        widths: channels of the first block and of those that halve the map; one more block keeps the last width.
    """

    def __init__(self, in_channels: int = 3, widths: tuple[int, ...] = (64, 128, 256, 512, 512)):
        super().__init__()
        first = widths[0]
        self.down_block = nn.ModuleDict({"0": SpectralConv2d(in_channels, first, 3), "2": SpectralConv2d(first, first, 3)})
        self.skip = nn.ModuleDict({"0": SpectralConv2d(in_channels, first, 1)})
        blocks = [_Residual(a, b, True) for a, b in pairwise(widths)]
        self.blocks = nn.ModuleList([*blocks, _Residual(widths[-1], widths[-1], False)])
        self.linear = SpectralLinear(widths[-1], 1)

    def forward(self, x: Tensor) -> Judged:
        """(B, in_channels, H, W) -> scores and features."""
        y = self.down_block["2"](self.down_block["0"](x).relu())
        x = F.avg_pool2d(y, 2) + F.avg_pool2d(self.skip["0"](x), 2)
        features = []
        for block in self.blocks:
            x = x.relu()
            features.append(x)
            x = block(x)
        features.append(x)
        return Judged(self.linear(x.relu().sum((2, 3)))[:, 0], features)
