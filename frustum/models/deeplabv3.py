"""DeepLabV3 (Chen et al., 2017, arXiv:1706.05587): the class of every pixel, from convolutions that look at several distances at once.

image -> encoder at stride 8 -> 1x1, three dilated 3x3 convolutions and the global mean, side by side -> 3x3 convolution -> classes

Modules have the names of OpenMMLab's segmentors. Shape letters: B batch, C channels, K classes, H W image, h w feature map.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from frustum.models.segmentation import Segmentor, SegmentorConfig
from frustum.nn.label_maps import conv_norm, pooled


class DeepLabV3Config(SegmentorConfig):
    """Settings of DeepLabV3, beside those of `SegmentorConfig`.

    Attributes:
        channels: C, of each branch and of the map that the classes are read from.
        dilations: of the 3x3 convolutions, in places of the map; the paper's for stride 8.
    """

    channels: PositiveInt = 256
    dilations: tuple[PositiveInt, ...] = (12, 24, 36)

    def build(self) -> DeepLabV3:
        """The network; only the encoder may start from trained weights."""
        return DeepLabV3(self)


class DeepLabV3(Segmentor):
    """`forward` returns, with h = H / 8 for a ResNet and H / 4 for EfficientNet-Lite0, sizes rounded up,

    features: (B, C, h, w) the map that the classes are read from, ahead of the dropout
    logits: (B, K, h, w) before the softmax
    aux_logits: (B, K, h', w') of the auxiliary head, in training; h' = H / 8 for a ResNet, H / 16 for EfficientNet-Lite0
    """

    def __init__(self, config: DeepLabV3Config):
        super().__init__(config)
        self.decode_head = AtrousHead(self.backbone.out_channels[1], config)


class AtrousHead(nn.Module):
    """Atrous spatial pyramid pooling: branches of several dilations and the global mean, a 3x3 convolution, and the classes."""

    def __init__(self, in_channels: int, config: DeepLabV3Config):
        super().__init__()
        channels, ways = config.channels, config.conventions
        self.image_pool = pooled(in_channels, channels, 1, ways)
        branches = [conv_norm(in_channels, channels, 3, ways, dilation) for dilation in config.dilations]
        self.aspp_modules = nn.ModuleList([conv_norm(in_channels, channels, 1, ways), *branches])
        self.bottleneck = conv_norm((2 + len(branches)) * channels, channels, 3, ways)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_seg = nn.Conv2d(channels, len(config.class_names), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, h, w) -> features (B, C, h, w), logits (B, K, h, w)."""
        whole = self.image_pool(x).expand(-1, -1, *x.shape[-2:])
        features = self.bottleneck(torch.cat([whole, *(branch(x) for branch in self.aspp_modules)], 1))
        return features, self.conv_seg(self.dropout(features))
