"""A small encoder of images into codes, for networks that learn on a CPU."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from frustum.nn.conv import ConvNorm


class SmallCode(nn.Module):
    """Images (M, 3, H, W) -> codes (M, code_size): five 3x3 convolutions with stride 2, their last map read at 2 x 2 places.

    Args:
        code_size: numbers of a code.
        width: channels of the first convolution; they double up to 8 * width.
    """

    def __init__(self, code_size: int, width: int = 16):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width, 8 * width)
        layers = [ConvNorm(a, b, stride=2) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], code_size))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.layers(images)
