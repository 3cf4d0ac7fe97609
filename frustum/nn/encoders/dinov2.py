"""DINOv2's vision transformers (Oquab et al., TMLR 2024) with patches of 14 pixels and the key names of facebookresearch/dinov2.

images -> patch tokens + position embedding -> 12 blocks of attention and MLP -> layer norm -> map of patch tokens

Shape letters: M images, h w map of patches, L = 1 + registers + h * w tokens, D channels, G heads.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError, ConfigError, ShapeError, nearest_names
from frustum.nn.encoders.pretrained import Pretrained, fill

DinoSize = Literal["vits14", "vitb14", "vits14_reg4", "vitb14_reg4"]
"""Small or base; `_reg4` has four register tokens (Darcet et al., ICLR 2024)."""

PATCH = 14
"""Side of a patch in pixels."""

_WIDTHS = {"vits14": (384, 6), "vitb14": (768, 12)}  # channels, heads
_DEPTH = 12
_GRID = 37  # patches per side of the images that the position embedding was trained on


class DinoV2(nn.Module):
    """A vision transformer of DINOv2 that returns its patch tokens as a map.

    Args:
        size: `vits14` (22.1 million parameters), `vitb14` (86.6 million), or one of them with register tokens.
        pretrained: the published file of this size, or timm's conversion of a model without registers, which lacks the mask token. No
            package has these weights.

    Attributes:
        out_channels: D, 384 or 768.
        started_from: where the first weights come from; empty for random ones.

    Raises:
        ConfigError: unknown size, or `pretrained=true`. CheckpointError: a file without such weights.
    """

    def __init__(self, size: DinoSize = "vits14", pretrained: Pretrained = False):
        super().__init__()
        if size not in get_args(DinoSize):
            raise ConfigError(f"there is no DINOv2 of size {size!r}: {nearest_names(size, get_args(DinoSize))}")
        name, _, registers = size.partition("_reg")
        width, heads = _WIDTHS[name]
        self.out_channels = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _GRID**2, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, int(registers), width)) if registers else None
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # stands for hidden patches in DINOv2's own training; not used here
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, PATCH, PATCH)))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(_DEPTH)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._resized: dict[tuple[int, int], tuple[tuple[object, ...], Tensor]] = {}
        self.started_from = ""
        if pretrained:
            self._read(size, pretrained)
            self.started_from = str(pretrained)
        else:
            self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Images (M, 3, H, W), normalised by ImageNet's mean and standard deviation, sides multiples of 14 -> (M, D, H / 14, W / 14).

        These are DINOv2's `x_norm_patchtokens`: behind the last norm. Raises ShapeError.
        """
        _check(images)
        x = self.patch_embed(images)
        height, width = x.shape[2:]
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x.flatten(2).mT), 1)  # (M, 1 + h * w, D)
        x = x + self._positions(height, width).to(x.dtype)
        if self.register_tokens is not None:
            x = torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]), 1)
        x = self.norm(self.blocks(x))[:, -height * width :]
        return x.mT.unflatten(2, (height, width))

    def _positions(self, height: int, width: int) -> Tensor:
        """The position embedding of a map, (1, 1 + h * w, D). Resizing is slow: it is done once per size until the weights change."""
        weight = self.pos_embed
        antialias = self.register_tokens is not None
        if torch.is_grad_enabled() and weight.requires_grad:
            return resized_positions(weight, height, width, antialias)
        state = (id(weight), 0 if weight.is_inference() else weight._version, weight.device, weight.dtype)
        kept = self._resized.get((height, width))
        if kept is None or kept[0] != state:
            kept = self._resized[height, width] = state, resized_positions(weight, height, width, antialias)
        return kept[1]

    def _read(self, size: str, pretrained: Pretrained) -> None:
        needed = f"dinov2_{size}_pretrain.pth of facebookresearch/dinov2 (Apache-2.0)"
        if pretrained is True:
            raise ConfigError(f"no package has weights for DINOv2: give a file, {needed}, or pretrained=false.")
        try:
            fill(self, {"mask_token": self.mask_token.detach(), **open_state(str(pretrained)).state}, f"DINOv2 {size}")
        except CheckpointError as error:
            raise CheckpointError(f"{error}\nNeeded in place of {pretrained}: {needed}.") from error

    def _initialise(self) -> None:
        """Random weights as in DINOv2: small position embedding and linear layers, nearly no class and register tokens."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.register_tokens):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def resized_positions(embedding: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    """DINOv2's resize of a position embedding to a map of patches: bicubic, in float32.

    The published models differ: without registers they scale by (n + 0.1) / 37 without antialiasing, so that positions lie up to 0.1 patch
    beside those of an exact resize; with registers they resize exactly, with antialiasing.

    Args:
        embedding: (1, 1 + 37 * 37, D), the class token's first.
        height: rows of the map.
        width: columns of the map.
        antialias: as the models with registers do.

    Returns:
        (1, 1 + height * width, D).
    """
    if (height, width) == (_GRID, _GRID):
        return embedding
    first, grid = embedding[:, :1].float(), embedding[:, 1:].float().mT.unflatten(2, (_GRID, _GRID))
    if antialias:
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
    else:
        grid = F.interpolate(grid, scale_factor=((height + 0.1) / _GRID, (width + 0.1) / _GRID), mode="bicubic")
    return torch.cat((first, grid.flatten(2).mT), 1)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"DINOv2 needs images (M, 3, H, W), got {tuple(images.shape)}.")
    if any(n % PATCH or not n for n in images.shape[2:]):
        near = [sorted({max(PATCH, n // PATCH * PATCH), max(PATCH, -(-n // PATCH) * PATCH)}) for n in images.shape[2:]]
        height, width = (" or ".join(map(str, sides)) for sides in near)
        raise ShapeError(
            f"DINOv2 needs images whose sides are multiples of {PATCH} pixels, got {tuple(images.shape)}: resize, crop or pad them to a "
            f"height of {height} and a width of {width}."
        )


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width)))
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, L, D) -> the same."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (M, G, L, D / G) each
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    """A learned factor per channel of a residual branch."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
