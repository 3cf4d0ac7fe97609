"""The 2D network over the bird's-eye-view map: BEVDet's CustomResNet and FPN_LSS, with their key names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from frustum.geometry import VoxelGrid
from frustum.nn.conv import ConvNorm
from frustum.nn.encoders.resnet import BasicBlock


def even_cells(count: int, axes: str) -> AfterValidator:
    """A check, for annotations, that a grid has an even number of cells along its first `count` axes, which `axes` names."""

    def check(grid: VoxelGrid) -> VoxelGrid:
        if any(cells % 2 for cells in grid.shape[:count]):
            given = " x ".join(map(str, grid.shape[:count]))
            raise ValueError(f"this network needs a grid with an even number of cells along {axes}, got {given}; set model.grid")
        return grid

    return AfterValidator(check)


MapGrid = Annotated[VoxelGrid, even_cells(2, "x and y")]
"""A grid whose map `CustomResNet` can halve and `FpnLss` double again."""


Block = Callable[[int, int, int, bool], nn.Module]


class ResidualStages(nn.Module):
    """Stages of residual blocks, in 2D or 3D.

    Args:
        in_channels: channels of the input.
        channels: channels of each stage.
        num_blocks: blocks in each stage.
        strides: stride of each stage, which its first block takes.
        block: makes a block from its input channels, its channels, its stride, and whether a convolution maps its shortcut, as in the first
            block of each stage.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], num_blocks: tuple[int, ...], strides: tuple[int, ...], block: Block):
        super().__init__()
        stages = []
        for width, count, stride in zip(channels, num_blocks, strides, strict=True):
            blocks = [block(in_channels, width, stride, True), *(block(width, width, 1, False) for _ in range(count - 1))]
            stages.append(nn.Sequential(*blocks))
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
        super().__init__(in_channels, channels, num_blocks, strides, _block)


def _block(in_channels: int, width: int, stride: int, mapped: bool) -> BasicBlock:
    return BasicBlock(in_channels, width, stride, nn.Conv2d(in_channels, width, 3, stride, 1) if mapped else None)


class FpnLss(nn.Module):
    """Joins the first and the last of several maps, and doubles the resolution; all up-sampling is bilinear with aligned corners.

    The coarse stage is stretched over the fine one whatever their sizes are (published: 4 times, or twice in M3's image neck).

    Args:
        in_channels: channels of the two joined stages together.
        out_channels: channels of the result.
        doubles: off, the result stays at the resolution of the fine stage (as the neck of image features in FlashOCC's M3).
    """

    def __init__(self, in_channels: int, out_channels: int, doubles: bool = True):
        super().__init__()
        hidden = 2 * out_channels if doubles else out_channels
        self.conv = nn.Sequential(*ConvNorm(in_channels, hidden), *ConvNorm(hidden, hidden))
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        last = nn.Sequential(up, *ConvNorm(hidden, out_channels), nn.Conv2d(out_channels, out_channels, 1))
        self.up2 = last if doubles else None

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, c, Y / 2, X / 2) first and (B, c', y, x) last -> (B, out_channels, Y, X), or half of that without doubling."""
        coarse = F.interpolate(maps[-1], size=maps[0].shape[-2:], mode="bilinear", align_corners=True)
        joined = self.conv(torch.cat([maps[0], coarse], 1))
        return joined if self.up2 is None else self.up2(joined)
