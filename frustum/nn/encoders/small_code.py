"""Small encoders of images into codes and into maps, for networks that learn on a CPU."""

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


class SmallMaps(nn.Module):
    """Images (M, C, S, S) -> maps at S, S / 2, ... down to 4 places a side, the coarsest first: a 3x3 convolution at every size.

    Args:
        image_size: S, 4 times a power of two.
        width: channels at full size; they double up to 8 * width.
        in_channels: C.

    Attributes:
        out_channels: of the maps, the coarsest first.
    """

    def __init__(self, image_size: int, width: int = 16, in_channels: int = 3):
        super().__init__()
        doublings = (image_size // 4).bit_length() - 1
        widths = [width * 2 ** min(i, 3) for i in range(doublings + 1)]
        self.layers = nn.ModuleList(ConvNorm(a, b, stride=1 if i == 0 else 2) for i, (a, b) in enumerate(pairwise((in_channels, *widths))))
        self.out_channels = tuple(reversed(widths))

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        maps = []
        for layer in self.layers:
            images = layer(images)
            maps.append(images)
        return maps[::-1]
