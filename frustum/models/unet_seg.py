"""U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597) at a small size: the class of every pixel, of parts as small as an eye.

image -> half, quarter, ... of its size -> back up, beside the maps of each size -> classes at full resolution

With batch norms, and with bilinear stretching in place of transposed convolutions.
Shape letters: B batch, K classes, H W image.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from frustum.data.images.cityscapes import CLASS_NAMES
from frustum.data.labels.pixels import PixelLabels
from frustum.losses.label_maps import label_map_loss
from frustum.models.segmentation import predicted_labels
from frustum.nn.conv import ConvNorm
from frustum.types.batch import Batch
from frustum.types.contract import ModelConfig
from frustum.types.predictions import Prediction


class UnetConfig(ModelConfig):
    """Settings of the U-Net.

    Attributes:
        class_names: K; ids in label maps count them.
        widths: channels at full, half, quarter, ... size.
        balance: of the loss (losses/label_maps.py): how much more a pixel of a rare class counts.
    """

    class_names: tuple[str, ...] = Field(CLASS_NAMES, min_length=1, max_length=255)
    widths: tuple[PositiveInt, ...] = Field((64, 128, 256, 512, 1024), min_length=2)
    balance: float = Field(0.0, ge=0, le=1)

    def learns_from(self) -> tuple[PixelLabels]:
        """Label maps."""
        return (PixelLabels(self.class_names),)

    def build(self) -> Unet:
        """The network with random weights."""
        return Unet(self)


class Unet(nn.Module):
    """`forward` returns

    logits: (B, K, H, W) before the softmax
    """

    def __init__(self, config: UnetConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(_pair(a, b) for a, b in pairwise((3, *widths)))
        self.up = nn.ModuleList(_pair(coarse + fine, fine) for fine, coarse in pairwise(widths))
        self.classify = nn.Conv2d(widths[0], len(config.class_names), 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the image of each sample; see the class."""
        maps = [self.down[0](batch.images[:, 0, 0])]
        for layer in self.down[1:]:
            maps.append(layer(F.max_pool2d(maps[-1], 2, ceil_mode=True)))
        x = maps.pop()
        for layer, fine in zip(reversed(self.up), reversed(maps), strict=True):
            x = F.interpolate(x, fine.shape[-2:], mode="bilinear", align_corners=False)
            x = layer(torch.cat((fine, x), 1))
        return {"logits": self.classify(x).float()}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`cross_entropy`."""
        return {"cross_entropy": label_map_loss(outputs["logits"], batch.need(PixelLabels), balance=self.config.balance)}

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The class of the highest logit at each pixel of the network's image."""
        return predicted_labels(outputs["logits"], batch, self.config.class_names)


def _pair(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(in_channels, channels), ConvNorm(channels, channels))
