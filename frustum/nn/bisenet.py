"""BiSeNet (Yu et al., ECCV 2018) that names the parts of a face, with the key names of zllrunning/face-parsing.PyTorch.

image -> ResNet-18 at stride 8, 16, 32 -> maps weighed by their means and added from coarse to fine -> classes of every pixel

Shape letters: B batch, K classes, H W image, h w map at stride 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.conv import ConvModule
from frustum.nn.encoders.resnet import ResNet


def _conv(in_channels: int, channels: int, kernel: int = 3) -> ConvModule:
    return ConvModule(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels))


class _Weighed(nn.Module):
    """A 3x3 convolution whose channels are weighed by what their means say."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = _conv(in_channels, channels)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()


class _ContextPath(nn.Module):
    """The encoder and its two coarse maps with what lies below them."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet(18, (2, 3, 4))
        self.arm16 = _Weighed(256, 128)
        self.arm32 = _Weighed(512, 128)
        self.conv_head32 = _conv(128, 128)
        self.conv_head16 = _conv(128, 128)
        self.conv_avg = _conv(512, 128, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.resnet(images)
        x = self.arm32(coarse) + self.conv_avg(coarse.mean((2, 3), keepdim=True))
        up32 = self.conv_head32(F.interpolate(x, middle.shape[-2:], mode="nearest"))
        x = self.arm16(middle) + up32
        return fine, self.conv_head16(F.interpolate(x, fine.shape[-2:], mode="nearest")), up32


class _Fusion(nn.Module):
    """Two maps side by side through a 1x1 convolution, whose channels are raised by what their means say."""

    def __init__(self, channels: int):
        super().__init__()
        self.convblk = _conv(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = self.convblk(torch.cat((first, second), 1))
        return x + x * self.conv2(self.conv1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class _Classes(nn.Module):
    def __init__(self, in_channels: int, channels: int, classes: int):
        super().__init__()
        self.conv = _conv(in_channels, channels)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Images (B, 3, H, W), normalised with ImageNet's mean and deviation -> logits (B, K, H, W).

    `conv_out16` and `conv_out32` are heads of coarser maps, which only a training of it compares: `auxiliary` computes them.
    """

    def __init__(self, classes: int = 19):
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _Fusion(256)
        self.conv_out = _Classes(256, 256, classes)
        self.conv_out16 = _Classes(128, 64, classes)
        self.conv_out32 = _Classes(128, 64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        fine, middle, _ = self.cp(images)
        return _stretched(self.conv_out(self.ffm(fine, middle)), images)

    def auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) of the maps at stride 8 and 16 ahead of the fusion."""
        _, middle, coarse = self.cp(images)
        return _stretched(self.conv_out16(middle), images), _stretched(self.conv_out32(coarse), images)


def _stretched(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)
