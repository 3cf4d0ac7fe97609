"""ResNet image encoders with torchvision's (and mmdet's "pytorch" style) key names: the stride sits in the 3x3 convolution."""

from __future__ import annotations

from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.nn.encoders.pretrained import Pretrained, fill, resnet_state


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `downsample` maps the input of the shortcut when the shape changes."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, channels, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution around a four times narrower middle."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, 4 * channels, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


Block = type[BasicBlock] | type[Bottleneck]
_LAYOUTS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """ResNet without its classifier.

    Args:
        depth: 18, 34, 50 or 101.
        outputs: which of layer1..layer4 (strides 4, 8, 16, 32) to return, e.g. (3, 4).
        pretrained: start from the weights of a package (ResNet-50) or of a file (encoders/pretrained.py).

    Attributes:
        out_channels: channels of each output.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: unknown depth or output, or no package with weights. CheckpointError: a file without such weights.
    """

    def __init__(self, depth: int = 50, outputs: tuple[int, ...] = (3, 4), pretrained: Pretrained = False):
        super().__init__()
        if depth not in _LAYOUTS:
            raise ConfigError(f"ResNet-{depth} does not exist; choose one of {sorted(_LAYOUTS)}.")
        if not outputs or not set(outputs) <= {1, 2, 3, 4}:
            raise ConfigError(f"ResNet outputs must name layers 1 to 4, got {outputs}.")
        block, counts = _LAYOUTS[depth]
        self.outputs = outputs
        self.out_channels = tuple(64 * 2 ** (i - 1) * block.expansion for i in outputs)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(block, 64, 64, counts[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, counts[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, counts[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, counts[3], 2)
        self.started_from = ""
        if pretrained:
            state, self.started_from = resnet_state(pretrained, depth)
            fill(self, state, f"a ResNet-{depth}")

    def forward(self, images: Tensor, outputs: tuple[int, ...] | None = None) -> list[Tensor]:
        """Images (M, 3, H, W) -> the chosen feature maps, finest first; `outputs` names others, deeper layers are not computed."""
        chosen = self.outputs if outputs is None else outputs
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            if i > max(chosen):
                break
            x = layer(x)
            if i in chosen:
                features.append(x)
        return features


def _stage(block: Block, in_channels: int, channels: int, count: int, stride: int) -> nn.Sequential:
    out_channels = channels * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
    blocks = [block(in_channels, channels, stride, downsample)]
    blocks += [block(out_channels, channels) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
