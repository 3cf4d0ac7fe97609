"""What networks that label the pixels of an image share: encoders with a fine last map, and parts of heads.

Names of modules are those of OpenMMLab's files. Shape letters: M images, C channels, K classes, H W image, h w feature map.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.nn.conv import ConvModule
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import BasicBlock, ResNet
from frustum.nn.fpn import CustomFPN

PixelEncoder = Literal["resnet18", "resnet50", "resnet101", "efficientnet_lite0", "small"]

Stem = Literal["7x7", "3x3", "3x3_wide"]
"""How a ResNet begins: one convolution as in torchvision, three of 32, 32, 64 channels (OpenMMLab's V1c) or of 64, 64, 128."""

Conventions = Literal["clean", "reference"]
"""`reference` is what networks of torch 0.4 such as TorchDistiller's need: maps stretched with aligned corners, max-pooling that rounds up,
a dilated stage dilated from its first convolution on, and heads whose activation keeps 1/100 below zero (InPlaceABN)."""

_STEMS: dict[Stem, tuple[int, ...]] = {"7x7": (), "3x3": (32, 32, 64), "3x3_wide": (64, 64, 128)}
_SLOPE = 0.01
_LITE_CHANNELS, _LITE_STRIDE = 64, 32


def pixel_encoder(
    encoder: PixelEncoder, pretrained: Pretrained, stem: Stem, conventions: Conventions
) -> ResNet | LiteEncoder | SmallEncoder:
    """A network from images (M, 3, H, W) to two maps, (M, C', h', w') for an auxiliary head and (M, C, h, w); `out_channels` is (C', C).

    Those of ResNets, of layer3 and layer4, have stride 8. Those of EfficientNet-Lite0 and of `small` have stride 16 and 4; they have
    neither stems nor conventions. Nobody publishes weights of `small`: ConfigError if `pretrained` asks for them.
    """
    if encoder == "small":
        if pretrained:
            raise ConfigError("there are no trained weights of the encoder 'small': set model.pretrained=false.")
        return SmallEncoder()
    if encoder == "efficientnet_lite0":
        return LiteEncoder(pretrained)
    old = conventions == "reference"
    depth = int(encoder.removeprefix("resnet"))
    return ResNet(depth, (3, 4), pretrained, output_stride=8, dilate_first=old, stem=_STEMS[stem], ceil_mode=old)


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 whose maps at stride 4 to 32 are added up at stride 4, so that thin things are seen.

    Images are padded below and on the right to multiples of 32. Its convolutions pad as TensorFlow does, so that a map's places lie
    elsewhere in the image where a side is odd on the way: a network that saw crops of another size would be off by many pixels.

    Args:
        pretrained: weights of EfficientNet-Lite0 (encoders/pretrained.py).

    Attributes:
        out_channels: (112, 64).
    """

    def __init__(self, pretrained: Pretrained = False):
        super().__init__()
        self.encoder = EfficientNetLite0((2, 4, 10, 14), pretrained=pretrained)
        self.neck = CustomFPN(self.encoder.out_channels, _LITE_CHANNELS)
        self.out_channels = self.encoder.out_channels[2], _LITE_CHANNELS

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W) -> [(M, 112, H / 16, W / 16), (M, 64, H / 4, W / 4)], sizes rounded up."""
        height, width = images.shape[-2:]
        features = self.encoder(F.pad(images, (0, -width % _LITE_STRIDE, 0, -height % _LITE_STRIDE)))
        maps = (16, features[2]), (4, self.neck(features))
        return [found[..., : -(-height // stride), : -(-width // stride)].contiguous() for stride, found in maps]


class SmallEncoder(nn.Module):
    """Five residual blocks of 24 to 64 channels at stride 4 to 16, whose maps are added up at stride 4: for a student on a CPU.

    Attributes:
        out_channels: (64, 32).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvModule(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.stages = nn.ModuleList(_blocks(a, b, count) for a, b, count in ((16, 24, 1), (24, 48, 2), (48, 64, 2)))
        self.neck = CustomFPN((24, 48, 64), 32)
        self.out_channels = 64, 32

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W) -> [(M, 64, H / 16, W / 16), (M, 32, H / 4, W / 4)], sizes rounded up."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [x, self.neck(maps)]


def _blocks(in_channels: int, channels: int, count: int) -> nn.Sequential:
    """Residual blocks, the first with stride 2."""
    shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, 2, bias=False), nn.BatchNorm2d(channels))
    first = BasicBlock(in_channels, channels, 2, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(count - 1)))


class PooledNorm(nn.BatchNorm2d):
    """A batch norm that takes its stored statistics for a batch of one number per channel, which has no spread: one image's global mean."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, h, w) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def conv_norm(in_channels: int, out_channels: int, kernel: int, conventions: Conventions, dilation: int = 1) -> ConvModule:
    """A convolution that keeps the size, with the norm and the activation of a head."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
    return ConvModule(conv, PooledNorm(out_channels), slope=_SLOPE if conventions == "reference" else 0.0)


def pooled(in_channels: int, out_channels: int, size: int, conventions: Conventions) -> nn.Sequential:
    """Means over size x size parts of a map, through a 1x1 convolution: (M, in_channels, h, w) -> (M, out_channels, size, size)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(size), conv_norm(in_channels, out_channels, 1, conventions))


class AuxiliaryHead(nn.Module):
    """Logits of an earlier map, which are only there to be learned from: a 3x3 and a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, classes: int, dropout: float, conventions: Conventions):
        super().__init__()
        self.convs = nn.Sequential(conv_norm(in_channels, channels, 3, conventions))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, K, h, w)."""
        return self.conv_seg(self.dropout(self.convs(x)))
