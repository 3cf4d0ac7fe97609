"""Feature pyramid necks for image features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.conv import ConvModule


class CustomFPN(nn.Module):
    """FPN of BEVDet and PETR: all levels are merged top-down (nearest up-sampling, sum), only the finest is smoothed and returned."""

    def __init__(self, in_channels: tuple[int, ...], out_channels: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(nn.Conv2d(c, out_channels, 1), relu=False) for c in in_channels)
        self.fpn_convs = nn.ModuleList([ConvModule(nn.Conv2d(out_channels, out_channels, 3, padding=1), relu=False)])

    def forward(self, features: list[Tensor]) -> Tensor:
        """Feature maps, finest first -> (M, out_channels, h, w) at the finest resolution."""
        merged = self.lateral_convs[-1](features[-1])
        for conv, feature in zip(reversed(self.lateral_convs[:-1]), reversed(features[:-1]), strict=True):
            lateral = conv(feature)
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
        return self.fpn_convs[0](merged)


CPFPN = CustomFPN
"""PETR's name for it. Its coarser maps, which no published head reads, are not returned."""
