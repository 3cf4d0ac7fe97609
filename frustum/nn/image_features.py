"""Images to one feature map at stride 8, as SimpleBEV makes it, with its key names: two maps of an encoder, joined and mixed.

Shape letters: M images, C channels, h w feature map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.efficientnet_b import EfficientNetB
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.instance_norm import InstanceNorm

Encoder = Literal["resnet101", "resnet50", "efficientnet_b4", "efficientnet_b0", "efficientnet_lite0"]


class ImageFeatures(nn.Module):
    """(M, 3, H, W) -> (M, C, H / 8, W / 8).

    Args:
        encoder: the kind of encoder, of which the maps at stride 8 and 16 are taken.
        channels: C.
        pretrained: weights that the encoder starts from (encoders/pretrained.py).
        frozen_blocks: of EfficientNet-Lite0 alone: blocks that are not trained.
    """

    def __init__(self, encoder: Encoder, channels: int, pretrained: Pretrained = False, frozen_blocks: int = 0):
        super().__init__()
        self.backbone: nn.Module
        self.layer3: nn.Module | None = None
        if encoder in ("resnet50", "resnet101"):
            resnet = ResNet(int(encoder.removeprefix("resnet")), (2, 3), pretrained)
            self.backbone = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1, resnet.layer2)
            self.layer3, widths, hidden = resnet.layer3, resnet.out_channels, 512
        elif encoder == "efficientnet_lite0":
            lite = EfficientNetLite0((4, 10), frozen_blocks=frozen_blocks, pretrained=pretrained)
            self.backbone, widths, hidden = lite, lite.out_channels, channels
        else:
            net = EfficientNetB("b0", (4, 10), pretrained) if encoder == "efficientnet_b0" else EfficientNetB("b4", (9, 21), pretrained)
            self.backbone, widths, hidden = net, net.out_channels, 128
        self.upsampling_layer = Joined(sum(widths), hidden)
        self.depth_layer = nn.Conv2d(hidden, channels, 1)  # the upstream name: elsewhere it also predicts depth

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.layer3 is not None:
            fine = self.backbone(images)
            coarse = self.layer3(fine)
        else:
            fine, coarse = self.backbone(images)
        return self.depth_layer(self.upsampling_layer(fine, coarse))


class Joined(nn.Module):
    """A map and a coarser one, doubled, through two 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), InstanceNorm(), nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), InstanceNorm(), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(M, c, h, w) and (M, c', h / 2, w / 2) -> (M, out_channels, h, w)."""
        return self.conv(torch.cat([fine, F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)], 1))
