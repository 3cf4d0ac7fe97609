"""ResNet image encoders with torchvision's (and mmdet's "pytorch" style) key names: the stride sits in the 3x3 convolution.

In mmdet's "caffe" style it sits in the first 1x1 convolution, and batch norms keep their statistics and weights.
Networks that label pixels have no stride in the last stages, but dilated 3x3 convolutions, so that the map stays fine.
"""

from __future__ import annotations

from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.nn.deform import DeformConv
from frustum.nn.encoders.pretrained import Pretrained, fill, resnet_state


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm that stays in eval mode, and whose weights get no gradient."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Eval mode, whatever is asked for."""
        return super().train(False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `downsample` maps the input of the shortcut when the shape changes.

    `dilations` are those of the two.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None, dilations: tuple[int, int] = (1, 1)
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilations[0], dilations[0], bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilations[1], dilations[1], bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, channels, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a four times narrower middle.

    The 3x3 convolution has the stride, with `caffe` the first one, whose batch norms are frozen; with `deformable` it is a DCNv2. In a
    ResNeXt it works in `groups`, and the middle is wider: `group_width` channels in each group where `channels` is 64.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, downsample: nn.Module | None = None, dilation: int = 1,
        caffe: bool = False, deformable: bool = False, groups: int = 1, group_width: int = 64,
    ):  # fmt: skip
        super().__init__()
        norm = FrozenBatchNorm if caffe else nn.BatchNorm2d
        first, middle = (stride, 1) if caffe else (1, stride)
        width = channels * group_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = norm(width)
        self.conv2: nn.Module
        if deformable:
            self.conv2 = DeformConv(width, width, 3, middle, 1, modulated=True)
        else:
            self.conv2 = nn.Conv2d(width, width, 3, middle, dilation, dilation, groups, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, channels * 4, 1, bias=False)
        self.bn3 = norm(channels * 4)
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
        pretrained: start from the weights of a package (ResNet-50) or of a file (encoders/pretrained.py); offsets that it does not hold
            start at zero.
        caffe: the stride of a stage sits in the first 1x1 convolution instead of the 3x3 one; batch norms stay in eval mode and get no
            gradient. ResNet-50 and 101.
        deformable: in which of layer1..layer4 the 3x3 convolutions are deformable ones with a mask (DCNv2), e.g. (3, 4). Likewise.
        output_stride: of the last stage. With 16 layer4, with 8 layer3 and layer4 have no stride; their 3x3 convolutions are dilated by as
            much as strides are missing.
        dilate_first: the first 3x3 convolution of such a stage is dilated as the others are, as in TorchDistiller's networks. Else it is
            dilated as the stage before: then the map holds, at every second place or fourth, that of the strided network (torchvision,
            OpenMMLab's `contract_dilation`).
        stem: channels of three 3x3 convolutions, conv1 to conv3, in place of the one of 7x7; empty for that one.
        ceil_mode: the max-pooling rounds up: 512 pixels make 129 places instead of 128.

    Attributes:
        out_channels: channels of each output.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: unknown depth, output, stage or stride, bottleneck options without bottlenecks, deformable stages that are dilated, or
            no package with weights.
        CheckpointError: a file without such weights.
    """

    def __init__(
        self, depth: int = 50, outputs: tuple[int, ...] = (3, 4), pretrained: Pretrained = False, caffe: bool = False,
        deformable: tuple[int, ...] = (), output_stride: int = 32, dilate_first: bool = False, stem: tuple[int, ...] = (),
        ceil_mode: bool = False,
    ):  # fmt: skip
        super().__init__()
        if depth not in _LAYOUTS:
            raise ConfigError(f"ResNet-{depth} does not exist; choose one of {sorted(_LAYOUTS)}.")
        if not outputs or not set(outputs) <= {1, 2, 3, 4}:
            raise ConfigError(f"ResNet outputs must name layers 1 to 4, got {outputs}.")
        if not set(deformable) <= {1, 2, 3, 4}:
            raise ConfigError(f"deformable stages of a ResNet must be layers 1 to 4, got {deformable}.")
        block, counts = _LAYOUTS[depth]
        if block is BasicBlock and (caffe or deformable):
            raise ConfigError(
                f"caffe style and deformable stages are for ResNet-50 and 101, whose blocks are bottlenecks, not ResNet-{depth}."
            )
        if output_stride not in (8, 16, 32) or (deformable and output_stride != 32):
            raise ConfigError(f"the output stride of a ResNet is 8, 16 or 32, with deformable stages 32, not {output_stride}.")
        if len(stem) not in (0, 3):
            raise ConfigError(f"the stem of a ResNet is one convolution (empty) or three, got channels {stem}.")
        self.outputs = outputs
        self.out_channels = tuple(64 * 2 ** (i - 1) * block.expansion for i in outputs)
        norm = FrozenBatchNorm if caffe else nn.BatchNorm2d
        self.has_deep_stem = bool(stem)
        if stem:
            self.conv1 = nn.Conv2d(3, stem[0], 3, 2, 1, bias=False)
            self.bn1 = norm(stem[0])
            self.conv2 = nn.Conv2d(stem[0], stem[1], 3, 1, 1, bias=False)
            self.bn2 = norm(stem[1])
            self.conv3 = nn.Conv2d(stem[1], stem[2], 3, 1, 1, bias=False)
            self.bn3 = norm(stem[2])
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_mode)
        strides, dilations = _dilated(output_stride)
        first = dilations if dilate_first else (1, *dilations[:-1])

        def stage(i: int, in_channels: int) -> nn.Sequential:
            channels, style = 64 * 2 ** (i - 1), (caffe, i in deformable)
            return resnet_stage(block, in_channels, channels, counts[i - 1], strides[i - 1], *style, dilations[i - 1], first[i - 1])

        self.layer1 = stage(1, stem[-1] if stem else 64)
        self.layer2 = stage(2, 64 * block.expansion)
        self.layer3 = stage(3, 128 * block.expansion)
        self.layer4 = stage(4, 256 * block.expansion)
        self.started_from = ""
        if pretrained:
            state, self.started_from = resnet_state(pretrained, depth, stem)
            offsets = {key: value for key, value in self.state_dict().items() if ".conv_offset." in key}
            fill(self, offsets | state, f"a ResNet-{depth}")

    def forward(self, images: Tensor, outputs: tuple[int, ...] | None = None) -> list[Tensor]:
        """Images (M, 3, H, W) -> the chosen feature maps, finest first; `outputs` names others, deeper layers are not computed."""
        chosen = self.outputs if outputs is None else outputs
        x = self.relu(self.bn1(self.conv1(images)))
        if self.has_deep_stem:
            x = self.relu(self.bn2(self.conv2(x)))
            x = self.relu(self.bn3(self.conv3(x)))
        x = self.maxpool(x)
        features = []
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            if i > max(chosen):
                break
            x = layer(x)
            if i in chosen:
                features.append(x)
        return features


def _dilated(output_stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilations of the four stages: beyond the output stride a dilation doubles where a stride is left out."""
    missing = {32: 0, 16: 1, 8: 2}[output_stride]
    return (1, 2, 2, 2)[: 4 - missing] + (1,) * missing, (1,) * (4 - missing) + (2, 4)[:missing]


def resnet_stage(
    block: Block, in_channels: int, channels: int, count: int, stride: int, caffe: bool = False, deformable: bool = False,
    dilation: int = 1, first_dilation: int = 1, groups: int = 1, group_width: int = 64,
) -> nn.Sequential:  # fmt: skip
    """`count` residual blocks, the first of them with the stride and, where the shape changes, a 1x1 convolution in its shortcut.

    Groups are of bottlenecks.
    """
    out_channels = channels * block.expansion
    norm = FrozenBatchNorm if caffe else nn.BatchNorm2d
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))

    def make(inside: int, step: int, shortcut: nn.Module | None, first: int) -> nn.Module:
        if block is Bottleneck:
            return Bottleneck(inside, channels, step, shortcut, first, caffe, deformable, groups, group_width)
        return BasicBlock(inside, channels, step, shortcut, (first, dilation))

    blocks = [make(in_channels, stride, downsample, first_dilation)]
    blocks += [make(out_channels, 1, None, dilation) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
