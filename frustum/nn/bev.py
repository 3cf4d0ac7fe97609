"""The 2D network over the bird's-eye-view map: BEVDet's CustomResNet and FPN_LSS, with their key names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from frustum.geometry import VoxelGrid
from frustum.nn.encoders.resnet import BasicBlock


def _can_be_halved(grid: VoxelGrid) -> VoxelGrid:
    x, y, _ = grid.shape
    if x % 2 or y % 2:
        raise ValueError(f"this network needs a grid whose cells along x and y are multiples of 2, got {x} x {y}; set model.grid")
    return grid


MapGrid = Annotated[VoxelGrid, AfterValidator(_can_be_halved)]
"""A grid whose map `CustomResNet` can halve and `FpnLss` double again."""


class ResidualStages(nn.Module):
    """Stages of residual blocks, in 2D or 3D.

    Args:
        in_channels: channels of the input.
        channels: channels of each stage.
        num_blocks: blocks in each stage.
        strides: stride of each stage, which its first block takes.
        first: makes the first block of a stage from its input channels, its channels and its stride.
        other: makes the others, from their input channels and their channels, which are equal.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        num_blocks: tuple[int, ...],
        strides: tuple[int, ...],
        first: Callable[[int, int, int], nn.Module],
        other: Callable[[int, int], nn.Module],
    ):
        super().__init__()
        stages = []
        for width, count, stride in zip(channels, num_blocks, strides, strict=True):
            stages.append(nn.Sequential(first(in_channels, width, stride), *(other(width, width) for _ in range(count - 1))))
            in_channels = width
        self.layers = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, *) -> the features after every stage."""
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class CustomResNet(ResidualStages):
    """Stages over the map, of two residual blocks each by default.

    The shortcut of a stage is a bare 3x3 convolution with bias and the stage's stride.

    Args:
        in_channels: channels of the pooled map.
        channels: channels of each stage.
        num_blocks: residual blocks in each stage.
        strides: stride of each stage.
    """

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], num_blocks: tuple[int, ...] = (2, 2, 2), strides: tuple[int, ...] = (2, 2, 2)
    ):
        super().__init__(in_channels, channels, num_blocks, strides, _mapped, BasicBlock)


def _mapped(in_channels: int, width: int, stride: int) -> BasicBlock:
    return BasicBlock(in_channels, width, stride, nn.Conv2d(in_channels, width, 3, stride, 1))


class FpnLss(nn.Module):
    """Joins the finest and the coarsest stage, and doubles the resolution; all up-sampling is bilinear with aligned corners.

    The coarse stage is stretched over the fine one whatever their sizes are (published: 4 times, or twice in M3's image neck).

    Args:
        in_channels: channels of the two joined stages together.
        out_channels: channels of the result.
        doubles: off, the result stays at the resolution of the fine stage (as the neck of image features in FlashOCC's M3).
    """

    def __init__(self, in_channels: int, out_channels: int, doubles: bool = True):
        super().__init__()
        hidden = 2 * out_channels if doubles else out_channels
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        last = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 1),
        )
        self.up2 = last if doubles else None

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, c, Y / 2, X / 2) and (B, c', y, x) -> (B, out_channels, Y, X), or half of that without doubling."""
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        joined = self.conv(torch.cat([fine, coarse], 1))
        return joined if self.up2 is None else self.up2(joined)
