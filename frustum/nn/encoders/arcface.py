"""IR-SE50, the network of ArcFace (Deng et al., CVPR 2019) that tells people apart, with the key names of TreB1eN/InsightFace_Pytorch.

Shape letters: M images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError

SIDE = 112
"""Pixels of the faces that it was made for."""

_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks
_CODE = 512


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class _Block(nn.Module):
    """Norm, 3x3 convolution, PReLU, 3x3 convolution with the stride, norm, squeeze and excitation; and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            _SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IrSe50(nn.Module):
    """Faces (M, 3, 112, 112) from -1 to 1 -> codes (M, 512) of length 1. Always in eval mode: its norms keep their statistics.

    Raises:
        ShapeError: faces of another size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(_CODE), nn.Dropout(), nn.Flatten(), nn.Linear(_CODE * (SIDE // 16) ** 2, _CODE), nn.BatchNorm1d(_CODE)
        )
        blocks, inside = [], 64
        for channels, count in _STAGES:
            for i in range(count):
                blocks.append(_Block(inside, channels, 2 if i == 0 else 1))
                inside = channels
        self.body = nn.Sequential(*blocks)
        self.eval()

    def train(self, mode: bool = True) -> IrSe50:
        """Eval mode, whatever is asked for."""
        return super().train(False)

    def is_trained(self) -> bool:
        """False for random weights, whose norms have not counted anything."""
        spreads = (part.running_var for part in self.modules() if isinstance(part, nn.BatchNorm2d))
        return any(spread is not None and not torch.equal(spread, torch.ones_like(spread)) for spread in spreads)

    def forward(self, faces: Tensor) -> Tensor:
        """See the class."""
        if faces.shape[-2:] != (SIDE, SIDE):
            raise ShapeError(f"IR-SE50 reads faces of {SIDE} x {SIDE} pixels, got {tuple(faces.shape[-2:])}.")
        return F.normalize(self.output_layer(self.body(self.input_layer(faces))))
