"""The 3D network over voxel features: BEVDet's CustomResNet3D, LSSFPN3D and BEVOCCHead3D, with their key names.

Shape letters: B batch, C channels, K classes, X Y Z voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frustum.nn.bev import ResidualStages
from frustum.nn.conv import ConvModule


def as_voxels(pooled: Tensor, heights: int) -> Tensor:
    """Take heights and channels of a pooled map apart again: (B, Z * C, Y, X) -> a view (B, C, Z, Y, X)."""
    return pooled.unflatten(1, (heights, -1)).transpose(1, 2)


class Conv3d(nn.Conv3d):
    """nn.Conv3d with 3x3x3 and 1x1x1 kernels, with right gradients in bfloat16 on a CPU.

    There oneDNN (as of torch 2.13) fills two of the three planes of the weight gradient with garbage if the input has Z = 2 and the
    kernel three planes. A third plane of zeros, which the padding stands for anyway, changes no output and avoids it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, C', Z / stride, Y / stride, X / stride), rounded up."""
        is_half = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        if not is_half or x.shape[2] != 2 or self.kernel_size[0] != 3:
            return super().forward(x)
        heights = 2 // self.stride[0]
        return super().forward(nn.functional.pad(x, (0, 0, 0, 0, 0, 1)))[:, :, :heights]


class ConvNorm3d(ConvModule):
    """A 3D convolution without bias, batch normalisation, and a ReLU if `relu`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, relu: bool = True):
        conv = Conv3d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm3d(out_channels), relu)


class BasicBlock3D(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, which with `mapped` is a 3x3x3 convolution with the stride of the block."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, mapped: bool = False):
        super().__init__()
        self.conv1 = ConvNorm3d(in_channels, channels, stride=stride)
        self.conv2 = ConvNorm3d(channels, channels, relu=False)
        self.downsample = ConvNorm3d(in_channels, channels, stride=stride, relu=False) if mapped else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, Z, Y, X) -> (B, channels, Z / stride, Y / stride, X / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv2(self.conv1(x)) + shortcut).relu_()


class CustomResNet3D(ResidualStages):
    """Stages of 1, 2 and 4 residual blocks over voxels, at strides 1, 2 and 2 along all three axes.

    The first block of a stage has a 3x3x3 convolution in its shortcut.

    Args:
        in_channels: channels of the pooled voxels.
        channels: channels of each stage.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int, int]):
        super().__init__(in_channels, channels, (1, 2, 4), (1, 2, 2), BasicBlock3D)


class LssFpn3D(nn.Module):
    """Brings three stages to the size of the finest (trilinear, aligned corners) and mixes them with a 1x1x1 convolution.

    Args:
        in_channels: channels of the three stages together.
        out_channels: channels of the result.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvNorm3d(in_channels, out_channels, kernel=1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """(B, c, Z, Y, X) and two coarser ones -> (B, out_channels, Z, Y, X)."""
        size = stages[0].shape[-3:]
        upsampled = [nn.functional.interpolate(x, size=size, mode="trilinear", align_corners=True) for x in stages[1:]]
        return self.conv(torch.cat([stages[0], *upsampled], 1))


class VoxelHead(nn.Module):
    """BEVDet's occupancy head: a 3x3x3 convolution, then two linear layers per voxel.

    Args:
        channels: channels of the voxels.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.final_conv = ConvModule(Conv3d(channels, channels, 3, padding=1))
        self.predicter = predicter(channels, num_classes)  # the upstream spelling: it is part of the checkpoints' key names

    def forward(self, voxels: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> voxel logits (B, X, Y, Z, K)."""
        return self.predicter(self.final_conv(voxels).permute(0, 4, 3, 2, 1))


def predicter(channels: int, out_channels: int) -> nn.Sequential:
    """BEVDet's and FlashOCC's last two linear layers: (*, channels) -> (*, out_channels)."""
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.Softplus(), nn.Linear(2 * channels, out_channels))


class LinearPerHeight(nn.Module):
    """A linear layer over the channels of a voxel whose weight all heights share, with a bias for each height.

    Attributes:
        weight: (K, channels).
        bias: (Z * K,), height-major.
    """

    def __init__(self, channels: int, heights: int, num_classes: int):
        super().__init__()
        shared = nn.Linear(channels, num_classes)  # for its initialisation
        self.weight = nn.Parameter(shared.weight.detach())
        self.bias = nn.Parameter(shared.bias.detach().repeat(heights))

    def forward(self, voxels: Tensor) -> Tensor:
        """(*, Z, channels) -> (*, Z * K)."""
        logits = nn.functional.linear(voxels, self.weight)
        return (logits + self.bias.view(-1, len(self.weight))).flatten(-2)
