"""Channel-to-height: the channels of a bird's-eye-view cell are read as Z heights times K classes (FlashOCC, section 3)."""

from __future__ import annotations

from torch import Tensor, nn


class _ConvRelu(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu_()


class ChannelToHeight(nn.Module):
    """FlashOCC's occupancy head: a 3x3 convolution, then two linear layers per cell whose output is height-major, class-minor.

    Args:
        channels: channels of the map.
        heights: Z.
        num_classes: K.
    """

    def __init__(self, channels: int, heights: int, num_classes: int):
        super().__init__()
        self.heights, self.num_classes = heights, num_classes
        self.final_conv = _ConvRelu(channels, channels)
        self.predicter = nn.Sequential(  # the upstream spelling: it is part of the checkpoints' key names
            nn.Linear(channels, 2 * channels), nn.Softplus(), nn.Linear(2 * channels, heights * num_classes)
        )

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> voxel logits (B, X, Y, Z, K), a transposed view of (B, Y, X, Z, K) memory."""
        rows = self.final_conv(bev).permute(0, 2, 3, 1)  # (B, Y, X, C)
        return self.predicter(rows).unflatten(-1, (self.heights, self.num_classes)).transpose(1, 2)
