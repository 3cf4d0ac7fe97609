"""CenterPoint's head over a bird's-eye-view map (Yin et al., CVPR 2021), with the key names of mmdetection3d.

Shape letters: B batch, K classes, X Y map cells, Q the best peaks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import without_autocast
from frustum.nn.conv import ConvModule

_WIDTHS = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
_RARE = -2.19  # a probability of 0.1 at the start
_CENTRES = ("reg", "height", "heatmap")
BOXES = ("reg", "height", "dim", "rot", "vel", "heatmap")
"""The branches of a head that finds boxes, in the published order."""


class Centres(NamedTuple):
    """The Q best peaks of each sample, best first.

    Attributes:
        points: (B, Q, 3) metres.
        classes: (B, Q) int64 in the order of the heat map's channels.
        scores: (B, Q), 0 where there was no further peak.
    """

    points: Tensor
    classes: Tensor
    scores: Tensor


class CentreHead(nn.Module):
    """A heat map per class whose peaks are object centres, and what is regressed there.

    `reg` is the offset of the centre in its cell, `height` its z; of a head of boxes also `dim`, the logarithms of length, width and height
    in metres, `rot`, sine and cosine of the yaw, and `vel`, the velocity in m/s.

    Args:
        in_channels: channels of the map.
        num_classes: K.
        channels: width inside.
        idle: further branches (`dim`, `rot`, `vel`) that are neither computed nor trained: published weights hold them.
        used: the branches that are; `BOXES` for boxes.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int = 10,
        channels: int = 64,
        idle: tuple[str, ...] = (),
        used: tuple[str, ...] = _CENTRES,
    ):
        super().__init__()
        self.used = used
        self.shared_conv = _conv_block(in_channels, channels)
        branches = nn.ModuleDict()
        for name in (*self.used, *idle):
            out = nn.Conv2d(channels, _WIDTHS.get(name, num_classes), 3, padding=1)
            branches[name] = nn.Sequential(_conv_block(channels, channels), out).requires_grad_(name not in idle)
            if name == "heatmap":
                nn.init.constant_(out.bias, _RARE)  # type: ignore[arg-type]
        self.task_heads = nn.ModuleList([branches])

    def forward(self, bev: Tensor) -> dict[str, Tensor]:
        """Map (B, in_channels, Y, X) -> `reg` (B, 2, Y, X) cells, `height` (B, 1, Y, X) metres, `heatmap` (B, K, Y, X) logits; float32.

        Where they are used also `dim` (B, 3, Y, X), `rot` (B, 2, Y, X), `vel` (B, 2, Y, X).
        """
        return self.read(self.shared_conv(bev))

    def read(self, shared: Tensor) -> dict[str, Tensor]:
        """What `forward` returns, from the features of `shared_conv`."""
        heads = self.task_heads[0]
        features = {name: heads[name][0](shared) for name in self.used}  # type: ignore[index]
        # Half precision has so few values that neighbours tie, and a tie makes two peaks of one: the last step is always float32.
        with without_autocast(shared):
            return {name: heads[name][1](feature.float()) for name, feature in features.items()}  # type: ignore[index]


class CompactCentreHead(nn.Module):
    """What `CentreHead` with `BOXES` returns, from two branches instead of six: the heat maps, and all that is regressed.

    Args:
        in_channels: channels of the map.
        num_classes: K.
        channels: width inside.
    """

    def __init__(self, in_channels: int, num_classes: int = 10, channels: int = 32):
        super().__init__()
        self.shared_conv = _conv_block(in_channels, channels)
        self.heat = nn.Sequential(_conv_block(channels, channels), nn.Conv2d(channels, num_classes, 1))
        self.regressed = nn.Sequential(_conv_block(channels, channels), nn.Conv2d(channels, sum(_WIDTHS.values()), 1))
        nn.init.constant_(self.heat[1].bias, _RARE)  # type: ignore[arg-type]

    def forward(self, bev: Tensor) -> dict[str, Tensor]:
        """As `CentreHead.forward`."""
        return self.read(self.shared_conv(bev))

    def read(self, shared: Tensor) -> dict[str, Tensor]:
        """What `forward` returns, from the features of `shared_conv`."""
        features = [branch[0](shared) for branch in (self.heat, self.regressed)]
        with without_autocast(shared):  # as in `CentreHead`
            heat, regressed = (branch[1](x.float()) for branch, x in zip((self.heat, self.regressed), features, strict=True))
        return dict(zip(_WIDTHS, regressed.split(list(_WIDTHS.values()), 1), strict=True)) | {"heatmap": heat}


def _conv_block(in_channels: int, channels: int) -> ConvModule:
    return ConvModule(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def decode_centres(outputs: dict[str, Tensor], grid: VoxelGrid, max_centres: int = 500) -> Centres:
    """The `max_centres` best peaks of the heat maps: cells that no neighbour of the same class exceeds.

    Args:
        outputs: `heatmap` (B, K, Y, X) logits, `reg` (B, 2, Y, X) offset in cells, `height` (B, 1, Y, X) metres.
        grid: the map's cells.
    """
    return best_cells(peaks_of(outputs["heatmap"].float().sigmoid()), outputs, grid, max_centres)[0]


def peaks_of(heat: Tensor) -> Tensor:
    """Heat maps (B, K, Y, X) with 0 in all cells that a neighbour exceeds."""
    return heat * (heat == F.max_pool2d(heat, 3, 1, 1))


def best_cells(heat: Tensor, outputs: dict[str, Tensor], grid: VoxelGrid, count: int) -> tuple[Centres, Tensor]:
    """The `count` highest entries of heat maps (B, K, Y, X), and the flat cells y * X + x (B, Q) where they are; see `decode_centres`."""
    num_y, num_x = heat.shape[-2:]
    scores, place = heat.flatten(1).topk(min(count, heat[0].numel()))
    cell = place % (num_y * num_x)
    regressed = torch.cat([outputs["reg"], outputs["height"]], 1).float().flatten(2)  # (B, 3, Y*X)
    dx, dy, z = regressed.gather(2, cell[:, None].expand(-1, 3, -1)).unbind(1)
    x = grid.lower[0] + (cell % num_x + dx) * grid.cell[0]
    y = grid.lower[1] + (cell.div(num_x, rounding_mode="floor") + dy) * grid.cell[1]
    return Centres(torch.stack([x, y, z], -1), place.div(num_y * num_x, rounding_mode="floor"), scores), cell
