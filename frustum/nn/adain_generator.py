"""A generator of images from a code: a learned constant, residual blocks, and instance norms whose scale and shift come from the code.

It is that of LPD (Burkov et al., CVPR 2020), which HeSer.Pytorch and GHOST 2.0 use, with their key names. A block's parts are numbered as
in their nn.Sequential, where an empty one stands in the place of a padding layer.

Shape letters: B batch, D code, C channels, A numbers of all instance norms, S side of the image.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.nn.spectral import SpectralConv2d, SpectralLinear

_EPS = 1e-4  # of instance norms and spectral norms
_CONSTANT = 4  # side of the learned constant


class Generated(NamedTuple):
    """What a generator makes.

    Attributes:
        image: (B, 3, S, S) from -1 to 1.
        mask_logits: (B, 1, S, S) of the head's mask, before the sigmoid; None without such a head.
    """

    image: Tensor
    mask_logits: Tensor | None


class _Affine:
    """The numbers of all instance norms (B, A), handed out in order: for each the shifts of its C channels, then their scales."""

    def __init__(self, numbers: Tensor):
        self.numbers, self.used = numbers, 0

    def norm_relu(self, x: Tensor) -> Tensor:
        """relu(scale * (x - mean) / deviation + shift) with the next numbers. The scale is used as it is, without a 1 added."""
        channels = x.shape[1]
        shift, scale = self.numbers[:, self.used : self.used + 2 * channels, None, None].split(channels, 1)
        self.used += 2 * channels
        with without_autocast(x):
            variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
            factor = scale * (variance + _EPS).rsqrt()
            return ((x - mean) * factor + shift).to(x.dtype).relu()


class _Block(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, beside a shortcut; an `is_up` block doubles both sides first, and may change the channels."""

    def __init__(self, in_channels: int, channels: int, is_up: bool):
        super().__init__()
        self.is_up = is_up
        names = ("4", "8") if is_up else ("3", "7")
        widths = (in_channels, channels), (channels, channels)
        self.block = nn.ModuleDict({n: SpectralConv2d(*w, 3, bias=False, eps=_EPS) for n, w in zip(names, widths, strict=True)})
        self.skip = nn.ModuleDict({"1": SpectralConv2d(in_channels, channels, 1, eps=_EPS)}) if is_up else None

    def forward(self, x: Tensor, affine: _Affine) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w), or with 2h, 2w."""
        first, second = self.block.values()
        y = affine.norm_relu(x)
        if self.skip is not None:
            x, y = (F.interpolate(z, scale_factor=2.0, mode="nearest") for z in (x, y))
            x = self.skip["1"](x)
        return second(affine.norm_relu(first(y))) + x


class _Constant(nn.Module):
    """The learned map that every image starts from."""

    def __init__(self, channels: int):
        super().__init__()
        self.constant = nn.Parameter(torch.ones(1, channels, _CONSTANT, _CONSTANT))


class AdainGenerator(nn.Module):
    """Codes (B, D) -> images; see the module.

    Args:
        code_size: D.
        image_size: S, a power of two times 4.
        channels: of the last block; they double towards the constant up to `max_channels`.
        has_mask: two heads, for the image and for its mask, each behind a norm of its own, as in LPD and GHOST 2.0; HeSer.Pytorch has one.

    Attributes:
        norm_widths: C of the instance norms in order.

    Raises:
        ConfigError: a side that cannot be reached by doubling 4.
    """

    def __init__(self, code_size: int, image_size: int = 512, channels: int = 64, max_channels: int = 512, has_mask: bool = False):
        super().__init__()
        doublings = int(math.log2(max(image_size, _CONSTANT) / _CONSTANT))
        if doublings < 1 or _CONSTANT * 2**doublings != image_size:
            raise ConfigError(f"a generated image has a side of 8, 16, 32, ... pixels, not {image_size}.")
        self.code_size = code_size
        widths = [min(channels * 2 ** (doublings - i), max_channels) for i in range(doublings + 1)]
        self.constant = _Constant(widths[0])
        blocks: list[nn.Module] = [_Block(widths[0], widths[0], False) for _ in range(2)]
        blocks += [_Block(a, b, True) for a, b in pairwise(widths)]
        self.decoder_blocks = nn.ModuleDict({str(i): block for i, block in enumerate(blocks)})
        self.norm_widths = [widths[0]] * 4 + [w for pair in pairwise(widths) for w in pair] + [widths[-1]]
        if has_mask:
            self.norm_widths.append(widths[-1])
            self.rgb_head = nn.ModuleDict({"2": SpectralConv2d(widths[-1], 3, 3, eps=_EPS)})
            self.mask_head = nn.ModuleDict({"2": SpectralConv2d(widths[-1], 1, 3, eps=_EPS)})
        else:
            self.decoder_blocks[str(len(blocks) + 2)] = SpectralConv2d(widths[-1], 3, 3, eps=_EPS)
        self.has_mask, self._num_blocks = has_mask, len(blocks)
        numbers = 2 * sum(self.norm_widths)
        self.affine_params_projector = nn.ModuleDict(
            {"0": SpectralLinear(code_size, code_size, eps=_EPS), "2": SpectralLinear(code_size, numbers, eps=_EPS)}
        )

    def affine(self, code: Tensor) -> Tensor:
        """(B, D) -> (B, A): for each norm in order C shifts, then C scales. Raises ShapeError for another D."""
        if code.ndim != 2 or code.shape[1] != self.code_size:
            raise ShapeError(f"the generator needs codes (B, {self.code_size}), got {tuple(code.shape)}.")
        first, second = self.affine_params_projector.values()
        return second(first(code).relu())

    def forward(self, code: Tensor) -> Generated:
        """Images, and masks where there is such a head, of codes (B, D). Raises ShapeError for another D."""
        affine = _Affine(self.affine(code))
        x = self.constant.constant.expand(len(code), -1, -1, -1)
        parts = list(self.decoder_blocks.values())
        for block in parts[: self._num_blocks]:
            x = block(x, affine)
        if self.has_mask:
            image = self.rgb_head["2"](affine.norm_relu(x)).tanh()
            return Generated(image, self.mask_head["2"](affine.norm_relu(x)))
        return Generated(parts[-1](affine.norm_relu(x)).tanh(), None)
