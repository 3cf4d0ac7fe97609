"""Swin transformer (Liu et al., ICCV 2021) with the key names of mmdet and BEVDet, whose stereo networks use it.

Attention runs inside windows of the feature map; every second block shifts the windows by half, so that neighbours meet.
Shape letters: B images, h w feature map, C channels, W windows, L = window ** 2 places in a window, G heads.
"""

from __future__ import annotations

import functools
from collections import OrderedDict

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from frustum.config import Config
from frustum.errors import ConfigError

Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class SwinConfig(Config):
    """Size of a Swin transformer; the defaults are Swin-B with windows of 12.

    Attributes:
        embed_channels: C of the first stage; each stage doubles it.
        depths: blocks in each stage.
        heads: attention heads in each stage; must divide its channels.
        window: side of the windows.
        drop_path: rate at which residual branches are left out in training, growing linearly from 0 over the blocks.
        recompute: save memory in training by computing the blocks again in the backward pass.
    """

    embed_channels: PositiveInt = 128
    depths: Four = (2, 2, 18, 2)
    heads: Four = (4, 8, 16, 32)
    window: PositiveInt = 12
    drop_path: NonNegativeFloat = 0.1
    recompute: bool = True

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> SwinConfig:
        for stage, heads in enumerate(self.heads):
            if self.embed_channels * 2**stage % heads:
                raise ValueError(f"{heads} heads do not divide the {self.embed_channels * 2**stage} channels of stage {stage}")
        return self


class SwinTransformer(nn.Module):
    """A Swin transformer without its classifier.

    Args:
        config: its size.
        outputs: stages (0 to 3, strides 4, 8, 16, 32) whose maps are returned behind a layer norm.
        raw_outputs: stages whose maps are returned as they are.

    Attributes:
        out_channels: channels of each output, in the order of the stages.

    Raises:
        ConfigError: an output that does not exist.
    """

    def __init__(self, config: SwinConfig, outputs: tuple[int, ...] = (2, 3), raw_outputs: tuple[int, ...] = ()):
        super().__init__()
        chosen = sorted({*outputs, *raw_outputs})
        if not chosen or not set(chosen) <= {0, 1, 2, 3} or set(outputs) & set(raw_outputs):
            raise ConfigError(f"Swin outputs must name stages 0 to 3, each once, got {outputs} and raw {raw_outputs}.")
        widths = [config.embed_channels * 2**i for i in range(4)]
        count = sum(config.depths)
        rates = [config.drop_path * i / max(1, count - 1) for i in range(count)]
        self.outputs, self.out_channels = tuple(chosen), tuple(widths[i] for i in chosen)
        self.patch_embed = _PatchEmbed(config.embed_channels)
        self.stages = nn.ModuleList()
        for i, (width, depth, heads) in enumerate(zip(widths, config.depths, config.heads, strict=True)):
            drop, rates = rates[:depth], rates[depth:]
            self.stages.append(_Stage(width, heads, config.window, drop, i < 3, config.recompute))
        for i in outputs:
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))

    def forward(self, images: Tensor, outputs: tuple[int, ...] | None = None) -> list[Tensor]:
        """Images (B, 3, H, W), sides multiples of 32 -> maps (B, C, h, w) of the stages asked for, finest first.

        `outputs` asks for some of the stages only; later ones are not computed.
        """
        chosen = self.outputs if outputs is None else outputs
        x = self.patch_embed(images)  # (B, h, w, C)
        maps = []
        for i, stage in enumerate(list(self.stages)[: max(chosen) + 1]):
            assert isinstance(stage, _Stage)
            x = stage(x)
            if i in chosen:
                norm = getattr(self, f"norm{i}", None)
                maps.append((x if norm is None else norm(x)).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None and i < max(chosen):
                x = stage.downsample(x)
        return maps


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.projection = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.projection(images).permute(0, 2, 3, 1))


class _PatchMerging(nn.Module):
    """Halves the resolution. Neighbours are read channel by channel, as mmdet's unfold does; in the authors' code channels come last."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4).flatten(3)  # (B, h/2, w/2, C * 2 * 2)
        return self.reduction(self.norm(x))


class _Stage(nn.Module):
    def __init__(self, channels: int, heads: int, window: int, drop: list[float], downsample: bool, recompute: bool):
        super().__init__()
        self.recompute = recompute
        self.blocks = nn.ModuleList(_Block(channels, heads, window, window // 2 * (i % 2), rate) for i, rate in enumerate(drop))
        self.downsample = _PatchMerging(channels) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            again = self.recompute and torch.is_grad_enabled() and self.training
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, window: int, shift: int, drop: float):
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _ShiftWindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        wide = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU())
        self.ffn = nn.Sequential(OrderedDict(layers=nn.Sequential(wide, nn.Linear(4 * channels, channels))))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._dropped(self.attn(self.norm1(x)))
        return x + self._dropped(self.ffn(self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        """Leave the branch out for some images, and scale it up for the others (stochastic depth)."""
        if not self.training or not self.drop:
            return x
        keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
        return x * keep.to(x.dtype) / (1 - self.drop)


class _ShiftWindowAttention(nn.Module):
    def __init__(self, channels: int, heads: int, window: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.w_msa = _WindowAttention(channels, heads, window)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> the same; the map is padded with zeros to whole windows."""
        _, height, width, _ = x.shape
        n, shift = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -width % n, 0, -height % n))
        b, h, w, c = x.shape
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        windows = x.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(b, -1, n * n, c)  # (B, W, L, C)
        windows = self.w_msa(windows, _shift_mask(h, w, n, shift, x.device) if shift else None)
        x = windows.view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
        x = torch.roll(x, (shift, shift), (1, 2)) if shift else x
        return x[:, :height, :width]


class _WindowAttention(nn.Module):
    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_index = nn.Buffer(_relative_positions(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, W, L, C), mask (W, L, L) added to the scores, or None -> (B, W, L, C)."""
        b, windows, places, channels = x.shape
        q, k, v = self.qkv(x).view(b, windows, places, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)  # (B, W, G, L, C / G) each
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (G, L, L)
        bias = bias if mask is None else bias + mask[:, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(x.transpose(2, 3).reshape(b, windows, places, channels))


def _relative_positions(window: int) -> Tensor:
    """(L, L) int64: row of the bias table for each pair of places in a window."""
    place = torch.arange(window)
    rows, columns = (g.flatten() for g in torch.meshgrid(place, place, indexing="ij"))
    down, right = rows[:, None] - rows + window - 1, columns[:, None] - columns + window - 1
    return down * (2 * window - 1) + right


@functools.lru_cache(maxsize=16)
def _shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """(W, L, L): -100 for pairs that the shift brought into one window from opposite ends of the map, else 0."""
    with torch.device(device), torch.inference_mode(False):
        region = torch.zeros(height, width)
        cuts = [slice(0, -window), slice(-window, -shift), slice(-shift, None)]
        for i, rows in enumerate(cuts):
            for j, columns in enumerate(cuts):
                region[rows, columns] = 3 * i + j
        region = region.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window * window)
        return (region[:, None] != region[:, :, None]).float() * -100.0
