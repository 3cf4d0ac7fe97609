"""MobileNetV2 (Sandler et al., CVPR 2018) that turns images into codes, with torchvision's key names."""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


class _Inverted(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        expand = [_conv(in_channels, hidden, 1)] if expansion > 1 else []
        project = nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv = nn.Sequential(*expand, _conv(hidden, hidden, 3, stride, hidden), *project)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Images (M, 3, H, W) -> codes (M, code_size); in training a fifth of the features is left out ahead of them."""

    def __init__(self, code_size: int):
        super().__init__()
        layers: list[nn.Module] = [_conv(3, _STEM, 3, 2)]
        inside = _STEM
        for expansion, channels, count, stride in _STAGES:
            for i in range(count):
                layers.append(_Inverted(inside, channels, stride if i == 0 else 1, expansion))
                inside = channels
        self.features = nn.Sequential(*layers, _conv(inside, _LAST, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_LAST, code_size))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.classifier(self.features(images).mean((2, 3)))
