"""EfficientNet-B0 and -B4 (Tan and Le, ICML 2019) with the key names of the package efficientnet_pytorch.

Published networks were trained with that package's padding, which it fixes for the image size that each variant was made for (224 and 380
pixels): a strided convolution of B4 in the middle of the network pads otherwise than one of B0, whatever the size of the image at hand.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.checkpoint.upstream_file import open_state
from frustum.errors import ConfigError
from frustum.nn.encoders.pretrained import Pretrained, fill

Variant = Literal["b0", "b4"]

# repeats, kernel, stride, expansion, output channels of the seven stages of B0
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
_SCALES: dict[str, tuple[float, float, int]] = {"b0": (1.0, 1.0, 224), "b4": (1.4, 1.8, 380)}  # of width, of depth, side of the image
_STEM = 32
_DROP = 0.2  # highest probability that a block is left out in training


class FixedConv2d(nn.Conv2d):
    """A convolution with the padding that TensorFlow's SAME has for images `side` pixels wide, whatever their size is."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False, side: int = 1
    ):
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=bias)
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, C', H', W')."""
        return super().forward(F.pad(x, self.pads) if any(self.pads) else x)


class Block(nn.Module):
    """Inverted residual with squeeze and excitation: expand 1x1, depthwise, weigh the channels, project 1x1."""

    def __init__(self, in_channels: int, kernel: int, stride: int, expansion: int, out_channels: int, side: int):
        super().__init__()
        hidden, squeezed = in_channels * expansion, max(1, in_channels // 4)
        self.has_shortcut, self.has_expansion = stride == 1 and in_channels == out_channels, expansion != 1
        if self.has_expansion:
            self._expand_conv = FixedConv2d(in_channels, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = FixedConv2d(hidden, hidden, kernel, stride, groups=hidden, side=side)
        self._bn1 = _norm(hidden)
        self._se_reduce = FixedConv2d(hidden, squeezed, 1, bias=True)
        self._se_expand = FixedConv2d(squeezed, hidden, 1, bias=True)
        self._project_conv = FixedConv2d(hidden, out_channels, 1)
        self._bn2 = _norm(out_channels)

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        """(M, in_channels, h, w) -> (M, out_channels, h', w'); in training an image's block is left out with probability `drop`."""
        shortcut = x
        if self.has_expansion:
            x = F.silu(self._bn0(self._expand_conv(x)))
        x = F.silu(self._bn1(self._depthwise_conv(x)))
        weight = self._se_expand(F.silu(self._se_reduce(x.mean((2, 3), keepdim=True))))
        x = self._bn2(self._project_conv(weight.sigmoid() * x))
        if not self.has_shortcut:
            return x
        if self.training and drop:
            x = x * (torch.rand(len(x), 1, 1, 1, device=x.device) >= drop).to(x.dtype) / (1 - drop)
        return x + shortcut


class EfficientNetB(nn.Module):
    """The first blocks of EfficientNet-B0 or -B4.

    Args:
        variant: `b0` or `b4`.
        outputs: numbers of the blocks whose output is returned, ascending; later blocks are left out.
        pretrained: a file of efficientnet_pytorch, or of a network that holds such an encoder; no package has these weights.

    Attributes:
        out_channels: channels of each output.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: impossible blocks, or `pretrained=true`. CheckpointError: a file without such weights.
    """

    def __init__(self, variant: Variant, outputs: tuple[int, ...], pretrained: Pretrained = False):
        super().__init__()
        width, depth, side = _SCALES[variant]
        stages = [(math.ceil(depth * n), k, s, e, _rounded(width * c)) for n, k, s, e, c in _STAGES]
        specs = [(k, s if i == 0 else 1, e, c) for n, k, s, e, c in stages for i in range(n)]
        if not outputs or list(outputs) != sorted(set(outputs)) or not 0 <= outputs[0] <= outputs[-1] < len(specs):
            raise ConfigError(f"encoder outputs must be ascending block numbers from 0 to {len(specs) - 1}, got {outputs}.")
        self.outputs, specs, stem = outputs, specs[: outputs[-1] + 1], _rounded(width * _STEM)
        self.out_channels = tuple(specs[i][3] for i in outputs)
        self._conv_stem = FixedConv2d(3, stem, 3, 2, side=side)
        self._bn0 = _norm(stem)
        self._blocks = nn.ModuleList()
        channels, side = stem, -(-side // 2)
        for kernel, stride, expansion, out_channels in specs:
            self._blocks.append(Block(channels, kernel, stride, expansion, out_channels, side))
            channels, side = out_channels, -(-side // stride)
        self.started_from = ""
        if pretrained is True:
            raise ConfigError(
                f"no package has weights for EfficientNet-{variant.upper()}: give a file (model.pretrained=FILE), or set it to false."
            )
        if pretrained:
            self.started_from = str(pretrained)
            state, stem_key = open_state(pretrained).state, "_conv_stem.weight"
            prefix = next((key.removesuffix(stem_key) for key in state if key.endswith(stem_key)), "")
            needed = {prefix + key: key for key in self.state_dict()}
            fill(self, {needed[key]: value for key, value in state.items() if key in needed}, f"an EfficientNet-{variant.upper()}")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W), normalised -> the chosen feature maps, finest first."""
        x, features = F.silu(self._bn0(self._conv_stem(images))), []
        for i, block in enumerate(self._blocks):
            x = block(x, _DROP * i / len(self._blocks))
            if i in self.outputs:
                features.append(x)
        return features


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _rounded(channels: float) -> int:
    """To a multiple of 8, not more than a tenth below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8
