"""The blender's U-Net: fills and recolours an image from what is known of it. With the key names of ColorVidNet (Zhang et al., CVPR 2019).

Shape letters: B batch, C channels of the input, H W image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.nn.instance_norm import InstanceNorm


def _conv(in_channels: int, channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)


def _up(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), _conv(in_channels, channels))


def _halved(channels: int) -> nn.Conv2d:
    """A factor for each channel, at every second place."""
    return nn.Conv2d(channels, channels, 1, 2, groups=channels, bias=False)


class BlendingUnet(nn.Module):
    """Four resolutions, two stages with dilated convolutions at the coarsest one, shortcuts that are added.

    Args:
        in_channels: C.
        width: channels at full resolution; they double up to 8 * width. Published: 64.
        first_width: of the first convolution; None takes the published half of `width`.
    """

    def __init__(self, in_channels: int = 12, width: int = 64, first_width: int | None = None):
        super().__init__()
        w0 = first_width or width // 2
        w1, w2, w3, w4 = width, 2 * width, 4 * width, 8 * width
        self.conv1_1 = nn.Sequential(_conv(in_channels, w0), nn.ReLU(), _conv(w0, w1))
        self.conv1_2 = _conv(w1, w1)
        self.conv1_2norm_ss = _halved(w1)
        self.conv2_1, self.conv2_2 = _conv(w1, w2), _conv(w2, w2)
        self.conv2_2norm_ss = _halved(w2)
        self.conv3_1, self.conv3_2, self.conv3_3 = _conv(w2, w3), _conv(w3, w3), _conv(w3, w3)
        self.conv3_3norm_ss = _halved(w3)
        self.conv4_1, self.conv4_2, self.conv4_3 = _conv(w3, w4), _conv(w4, w4), _conv(w4, w4)
        self.conv5_1, self.conv5_2, self.conv5_3 = _conv(w4, w4, 2), _conv(w4, w4, 2), _conv(w4, w4, 2)
        self.conv6_1, self.conv6_2, self.conv6_3 = _conv(w4, w4, 2), _conv(w4, w4, 2), _conv(w4, w4, 2)
        self.conv7_1, self.conv7_2, self.conv7_3 = _conv(w4, w4), _conv(w4, w4), _conv(w4, w4)
        self.conv8_1, self.conv3_3_short = _up(w4, w3), _conv(w3, w3)
        self.conv8_2, self.conv8_3 = _conv(w3, w3), _conv(w3, w3)
        self.conv9_1, self.conv2_2_short = _up(w3, w2), _conv(w2, w2)
        self.conv9_2 = _conv(w2, w2)
        self.conv10_1, self.conv1_2_short = _up(w2, w2), _conv(w1, w2)
        self.conv10_2 = _conv(w2, w2)
        self.conv10_ab = nn.Conv2d(w2, 3, 1)
        self.norm = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides multiples of 8 -> images (B, 3, H, W) from -1 to 1."""
        first = self._stage(1, x, 2)
        second = self._stage(2, self.conv1_2norm_ss(first), 2)
        third = self._stage(3, self.conv2_2norm_ss(second), 3)
        y = self.conv3_3norm_ss(third)
        for stage in (4, 5, 6, 7):
            y = self._stage(stage, y, 3)
        y = (self.conv8_1(y) + self.conv3_3_short(third)).relu()
        y = self.norm(self.conv8_3(self.conv8_2(y).relu()).relu())
        y = (self.conv9_1(y) + self.conv2_2_short(second)).relu()
        y = self.norm(self.conv9_2(y).relu())
        y = (self.conv10_1(y) + self.conv1_2_short(first)).relu()
        return self.conv10_ab(F.leaky_relu(self.conv10_2(y), 0.2)).tanh()

    def _stage(self, stage: int, x: Tensor, count: int) -> Tensor:
        for i in range(1, count + 1):
            x = self.get_submodule(f"conv{stage}_{i}")(x).relu()
        return self.norm(x)
