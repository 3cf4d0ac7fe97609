"""PSPNet (Zhao et al., CVPR 2017, arXiv:1612.01105): the class of every pixel, from a map that knows its surroundings and the whole scene.

image -> encoder at stride 8 -> means over 1, 4, 9 and 36 parts of the image beside the map -> 3x3 convolution -> classes

Modules have the names of OpenMMLab's files, the stem has those of TorchDistiller (docs/methods/segmentation.md).
Shape letters: B batch, C channels, K classes, H W image, h w feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from frustum.models.segmentation import Segmentor, SegmentorConfig
from frustum.nn.label_maps import conv_norm, pooled


class PspNetConfig(SegmentorConfig):
    """Settings of PSPNet, beside those of `SegmentorConfig`; published: 512 channels for ResNet-101, 128 for ResNet-18.

    Attributes:
        bins: parts of the image along each side.
    """

    bins: tuple[PositiveInt, ...] = (1, 2, 3, 6)

    def build(self) -> PspNet:
        """The network; only the encoder may start from trained weights."""
        return PspNet(self)


class PspNet(Segmentor):
    """`forward` returns, with h = H / 8 for a ResNet and H / 4 for EfficientNet-Lite0, sizes rounded up,

    features: (B, C, h, w) the map that the classes are read from, ahead of the dropout
    logits: (B, K, h, w) before the softmax
    aux_logits: (B, K, h', w') of the auxiliary head, in training; h' = H / 8 for a ResNet, H / 16 for EfficientNet-Lite0
    """

    def __init__(self, config: PspNetConfig):
        super().__init__(config)
        self.decode_head = PyramidHead(self.backbone.out_channels[1], config)


class PyramidHead(nn.Module):
    """A map and its means over parts of the image, stretched and side by side, through a 3x3 convolution; and the classes."""

    def __init__(self, in_channels: int, config: PspNetConfig):
        super().__init__()
        channels, self.is_aligned = config.channels, config.is_aligned
        self.psp_modules = nn.ModuleList(pooled(in_channels, channels, size, config.conventions) for size in config.bins)
        self.bottleneck = conv_norm(in_channels + len(config.bins) * channels, channels, 3, config.conventions)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_seg = nn.Conv2d(channels, len(config.class_names), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, h, w) -> features (B, C, h, w), logits (B, K, h, w)."""
        means = [F.interpolate(part(x), x.shape[-2:], mode="bilinear", align_corners=self.is_aligned) for part in self.psp_modules]
        features = self.bottleneck(torch.cat((x, *means), 1))
        return features, self.conv_seg(self.dropout(features))
