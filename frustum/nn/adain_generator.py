"""A generator of images from a code: a learned constant, residual blocks, and instance norms whose scale and shift come from the code.

It is that of LPD (Burkov et al., CVPR 2020), which HeSer.Pytorch and GHOST 2.0 use, with their key names. A block's parts are numbered as
in their nn.Sequential, where an empty one stands in the place of a padding layer.

Shape letters: B batch, D code, C channels, A numbers of all instance norms, S side of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        parts_logits: (B, 1 + parts, S, S) of what is beside the head, and of each part of it; None without parts.
        share_logits: (B, 1, S, S) of how much of another image shows, before the sigmoid; None if nothing is shared.
    """

    image: Tensor
    mask_logits: Tensor | None
    parts_logits: Tensor | None = None
    share_logits: Tensor | None = None


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

    def __init__(self, in_channels: int, channels: int, is_up: bool, is_spectral: bool):
        super().__init__()
        self.is_up = is_up
        names = ("4", "8") if is_up else ("3", "7")
        widths = (in_channels, channels), (channels, channels)
        self.block = nn.ModuleDict({n: _conv(*w, 3, is_spectral, bias=False) for n, w in zip(names, widths, strict=True)})
        self.skip = nn.ModuleDict({"1": _conv(in_channels, channels, 1, is_spectral)}) if is_up else None

    def forward(self, x: Tensor, affine: _Affine) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w), or with 2h, 2w."""
        first, second = self.block.values()
        y = affine.norm_relu(x)
        if self.skip is not None:
            x, y = (F.interpolate(z, scale_factor=2.0, mode="nearest") for z in (x, y))
            x = self.skip["1"](x)
        return second(affine.norm_relu(first(y))) + x


def _conv(in_channels: int, channels: int, kernel: int, is_spectral: bool, bias: bool = True) -> nn.Module:
    if is_spectral:
        return SpectralConv2d(in_channels, channels, kernel, bias=bias, eps=_EPS)
    return nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=bias)


def _linear(in_features: int, features: int, is_spectral: bool) -> SpectralLinear | nn.Linear:
    return SpectralLinear(in_features, features, eps=_EPS) if is_spectral else nn.Linear(in_features, features)


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
        is_spectral: convolutions and linear layers have spectral norms, as published; without a discriminator they only slow learning.
        map_channels: of maps that are added at 4, 8, ... S places a side, the coarsest first; none as published.
        parts: of a head, which the second one tells apart; 0 as published, which makes its mask alone.
        shares: a third head, for how much of another image should show in this one; not published. It needs the second one.

    Attributes:
        norm_widths: C of the instance norms in order.

    Raises:
        ConfigError: a side that cannot be reached by doubling 4; parts or sharing without a mask.
    """

    def __init__(
        self,
        code_size: int,
        image_size: int = 512,
        channels: int = 64,
        max_channels: int = 512,
        has_mask: bool = False,
        is_spectral: bool = True,
        map_channels: Sequence[int] = (),
        parts: int = 0,
        shares: bool = False,
    ):
        super().__init__()
        doublings = int(math.log2(max(image_size, _CONSTANT) / _CONSTANT))
        if doublings < 1 or _CONSTANT * 2**doublings != image_size:
            raise ConfigError(f"a generated image has a side of 8, 16, 32, ... pixels, not {image_size}.")
        if (shares or parts) and not has_mask:
            raise ConfigError("a generator of parts, or of a share in another image, has a head for the mask, too: set has_mask=true.")
        self.code_size = code_size
        widths = [min(channels * 2 ** (doublings - i), max_channels) for i in range(doublings + 1)]
        self.constant = _Constant(widths[0])
        blocks: list[nn.Module] = [_Block(widths[0], widths[0], False, is_spectral) for _ in range(2)]
        blocks += [_Block(a, b, True, is_spectral) for a, b in pairwise(widths)]
        self.decoder_blocks = nn.ModuleDict({str(i): block for i, block in enumerate(blocks)})
        self.norm_widths = [widths[0]] * 4 + [w for pair in pairwise(widths) for w in pair] + [widths[-1]]
        if has_mask:
            self.norm_widths.append(widths[-1])
            self.rgb_head = nn.ModuleDict({"2": _conv(widths[-1], 3, 3, is_spectral)})
            self.mask_head = nn.ModuleDict({"2": _conv(widths[-1], 1 + parts, 3, is_spectral)})
            if shares:
                self.norm_widths.append(widths[-1])
                self.share_head = nn.ModuleDict({"2": _conv(widths[-1], 1, 3, is_spectral)})
        else:
            self.decoder_blocks[str(len(blocks) + 2)] = _conv(widths[-1], 3, 3, is_spectral)
        self.has_mask, self.parts, self.shares, self._num_blocks = has_mask, parts, shares, len(blocks)
        pairs = zip(map_channels, widths, strict=True) if map_channels else ()
        self.map_layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        numbers = 2 * sum(self.norm_widths)
        first, second = _linear(code_size, code_size, is_spectral), _linear(code_size, numbers, is_spectral)
        self.affine_params_projector = nn.ModuleDict({"0": first, "2": second})
        assert second.bias is not None
        with torch.no_grad():  # norms begin with shifts about 0 and scales about 1
            second.bias.copy_(torch.cat([torch.cat((torch.zeros(w), torch.ones(w))) for w in self.norm_widths]))

    def affine(self, code: Tensor) -> Tensor:
        """(B, D) -> (B, A): for each norm in order C shifts, then C scales. Raises ShapeError for another D."""
        if code.ndim != 2 or code.shape[1] != self.code_size:
            raise ShapeError(f"the generator needs codes (B, {self.code_size}), got {tuple(code.shape)}.")
        first, second = self.affine_params_projector.values()
        return second(first(code).relu())

    def forward(self, code: Tensor, maps: Sequence[Tensor] = ()) -> Generated:
        """Images, and masks where there is such a head, of codes (B, D), and of maps (B, map_channels, s, s) where it was built for them.

        Raises:
            ShapeError: another D, or another number of maps.
        """
        if len(maps) != len(self.map_layers):
            raise ShapeError(f"the generator was built for {len(self.map_layers)} maps, got {len(maps)}.")
        affine = _Affine(self.affine(code))
        x = self.constant.constant.expand(len(code), -1, -1, -1)
        blocks = list(self.decoder_blocks.values())
        added = [layer(found) for layer, found in zip(self.map_layers, maps, strict=True)]
        for block in blocks[: self._num_blocks]:
            if added and added[0].shape[-1] == x.shape[-1]:
                x = x + added.pop(0)
            x = block(x, affine)
        if added:
            x = x + added.pop()
        if self.has_mask:
            image = self.rgb_head["2"](affine.norm_relu(x)).tanh()
            mask, parts = self.mask_head["2"](affine.norm_relu(x)), None
            if self.parts:
                parts = mask.float()
                mask = parts[:, 1:].logsumexp(1, keepdim=True) - parts[:, :1]
            return Generated(image, mask, parts, self.share_head["2"](affine.norm_relu(x)) if self.shares else None)
        return Generated(blocks[-1](affine.norm_relu(x)).tanh(), None)
