"""A convolution with what follows it, under the key names that checkpoints use."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class ConvNorm(nn.Sequential):
    """2D convolution without bias, batch normalisation, ReLU; keys are numbered."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ConvModule(nn.Sequential):
    """Convolution, batch normalisation if given, and ReLU, under the key names of mmcv's ConvModule: `conv` and `bn`.

    The ReLU has a `slope` below zero if one is given (leaky).
    """

    def __init__(self, conv: nn.Module, norm: nn.Module | None = None, relu: bool = True, slope: float = 0.0):
        act = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        parts = {"conv": conv, "bn": norm, "relu": act if relu else None}
        super().__init__(OrderedDict((name, part) for name, part in parts.items() if part is not None))
