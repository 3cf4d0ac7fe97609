"""VoVNet-V2 (Lee and Park, CVPR 2020), size 99 with eSE, with the key names of the authors' code, which have slashes in them.

A block of one-shot aggregation (OSA) runs five convolutions in a row and joins what all of them gave once, at the end:
x -> conv -> conv -> conv -> conv -> conv; [x, all five] -> 1x1 -> eSE, a gate per channel (-> + x, from the second block of a stage).
"""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError, ConfigError
from frustum.nn.encoders.pretrained import Pretrained, fill

_LAYERS = 5  # in a block
# Of each stage: its number, channels of its convolutions, channels that it returns, blocks.
_STAGES = ((2, 128, 256, 1), (3, 160, 512, 3), (4, 192, 768, 9), (5, 224, 1024, 3))


class VoVNet99(nn.Module):
    """V2-99-eSE without its classifier: 69.5 million parameters.

    Args:
        outputs: which of the stages 2 to 5 (strides 4, 8, 16, 32) to return, e.g. (4, 5). Later ones are not built.
        norm_eval: batch norms use their running statistics in training too; their weights still learn. Right for weights that were trained
            before, which is how detectors use this network.
        recompute: save memory in training by computing the blocks again in the backward pass. It needs `norm_eval`.
        pretrained: a file with the weights of such an encoder, alone or inside a detector (a depth-trained DD3D, a FCOS3D, a PETR). No
            package has them.

    Attributes:
        out_channels: channels of each output.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: unknown output, `recompute` without `norm_eval`, or `pretrained=true`. CheckpointError: a file without such weights.
    """

    def __init__(self, outputs: tuple[int, ...] = (4, 5), norm_eval: bool = True, recompute: bool = False, pretrained: Pretrained = False):
        super().__init__()
        if not outputs or not set(outputs) <= {2, 3, 4, 5}:
            raise ConfigError(f"VoVNet outputs must name stages 2 to 5, got {outputs}.")
        if recompute and not norm_eval:
            raise ConfigError("recompute counts each image twice in statistics that batch norms gather: use it with norm_eval=true.")
        self.outputs, self.norm_eval, self.recompute = outputs, norm_eval, recompute
        self.out_channels = tuple(channels for stage, _, channels, _ in _STAGES if stage in outputs)
        steps = [_conv("stem_1", 3, 64, stride=2), _conv("stem_2", 64, 64), _conv("stem_3", 64, 128, stride=2)]
        self.stem = nn.Sequential(OrderedDict(part for step in steps for part in step.items()))
        before = 128
        for stage, channels, out_channels, blocks in _STAGES[: max(outputs) - 1]:
            self.add_module(f"stage{stage}", _stage(f"OSA{stage}", before, channels, out_channels, blocks, shrink=stage > 2))
            before = out_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.started_from = ""
        if pretrained:
            state, self.started_from = _state(pretrained, max(outputs))
            fill(self, state, "a VoVNet99")
        self.train()

    def train(self, mode: bool = True) -> VoVNet99:
        """Training mode, but for the batch norms with `norm_eval`."""
        super().train(mode)
        for module in self.modules():
            if self.norm_eval and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (M, 3, H, W) -> maps of the chosen stages, finest first.

        The two strides of the stem round odd sizes up, the stages round them down: 101 x 75 pixels become 26 x 19, 13 x 9, 6 x 4, 3 x 2.
        """
        x = self.stem(images)
        maps = []
        for stage, *_ in _STAGES[: max(self.outputs) - 1]:
            for part in getattr(self, f"stage{stage}"):
                again = self.recompute and self.training and torch.is_grad_enabled() and isinstance(part, _Osa)
                x = checkpoint(part, x, use_reentrant=False) if again else part(x)
            if stage in self.outputs:
                maps.append(x)
        return maps


def _conv(name: str, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> OrderedDict[str, nn.Module]:
    """Convolution, batch norm and ReLU by the names `NAME/conv`, `NAME/norm`, `NAME/relu`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    parts = {"conv": conv, "norm": nn.BatchNorm2d(out_channels), "relu": nn.ReLU(inplace=True)}
    return OrderedDict((f"{name}/{part}", module) for part, module in parts.items())


def _stage(name: str, in_channels: int, channels: int, out_channels: int, blocks: int, shrink: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if shrink:
        parts["Pooling"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    for i in range(blocks):
        parts[f"{name}_{i + 1}"] = _Osa(f"{name}_{i + 1}", out_channels if i else in_channels, channels, out_channels, add_input=i > 0)
    return nn.Sequential(parts)


class _Osa(nn.Module):
    """One-shot aggregation."""

    def __init__(self, name: str, in_channels: int, channels: int, out_channels: int, add_input: bool):
        super().__init__()
        self.add_input = add_input
        self.layers = nn.ModuleList(nn.Sequential(_conv(f"{name}_{i}", channels if i else in_channels, channels)) for i in range(_LAYERS))
        self.concat = nn.Sequential(_conv(f"{name}_concat", in_channels + _LAYERS * channels, out_channels, kernel=1))
        self.ese = _Ese(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(M, in_channels, h, w) -> (M, out_channels, h, w)."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        gated = self.ese(self.concat(torch.cat(maps, 1)))
        return gated + x if self.add_input else gated


class _Ese(nn.Module):
    """Effective squeeze-and-excitation: each channel times a gate that reads the mean of all, through one layer and a hard sigmoid."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


def _state(pretrained: Pretrained, last: int) -> tuple[dict[str, Tensor], str]:
    """The encoder's part of a file up to stage `last`, found by the first convolution, and where it comes from."""
    if pretrained is True:
        raise ConfigError("no package has weights for VoVNet99: give a file (model.pretrained=FILE), or model.pretrained=false.")
    state, first = open_state(path := str(pretrained)).state, "stem.stem_1/conv.weight"
    found = [key.removesuffix(first) for key in state if re.search(rf"(^|\.){re.escape(first)}$", key)]
    if len(found) != 1:
        raise CheckpointError(f"{path} does not hold one VoVNet with the authors' key names: no single {first}.")
    names = re.compile(re.escape(found[0]) + rf"((stem|stage[2-{last}])\..+)")
    return {name[1]: value for key, value in state.items() if (name := names.fullmatch(key))}, path
